//! Project chores, run as `cargo xtask …`.

mod bench;
mod r#gen;

use clap::{Parser, Subcommand};

/// Project chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write crds/ and manifests/ from the types and tables in the crates.
    Gen {
        /// Write nothing; fail when a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Print the installation manifest with other images, for `kubectl apply -f -`.
    Manifest {
        /// Image of the operator.
        #[arg(long, env = "IMG", default_value = r#gen::DEFAULT_IMAGE)]
        image: String,
        /// Image of the warden.
        #[arg(long, env = "WARDEN_IMG", default_value = r#gen::WARDEN_IMAGE)]
        warden_image: String,
        /// Image of stoker-node.
        #[arg(long, env = "NODE_IMG", default_value = r#gen::NODE_IMAGE)]
        node_image: String,
    },
    /// Measure and print; needs root, as the lab does.
    Bench(bench::BenchArgs),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Gen { check } => r#gen::run(check),
        Chore::Manifest {
            image,
            warden_image,
            node_image,
        } => r#gen::print_manifest(&image, &warden_image, &node_image),
        Chore::Bench(args) => bench::run(&args),
    }
}
