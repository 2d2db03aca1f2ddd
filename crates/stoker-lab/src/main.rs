//! Front door of the lab for people and the Makefile.

mod cli;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    cli::main(cli::Arguments::parse())
}
