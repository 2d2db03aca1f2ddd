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
    /// Print the installation manifest with another image, for `kubectl apply -f -`.
    Manifest {
        /// Image of the operator.
        #[arg(long, env = "IMG", default_value = r#gen::DEFAULT_IMAGE)]
        image: String,
    },
    /// Measure and print; needs root, as the lab does.
    Bench(bench::BenchArgs),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Gen { check } => r#gen::run(check),
        Chore::Manifest { image } => r#gen::print_manifest(&image),
        Chore::Bench(args) => bench::run(&args),
    }
}
