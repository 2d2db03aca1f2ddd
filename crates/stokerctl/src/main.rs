//! `stokerctl`: what the operator of a fleet of tenants does daily. As `kubectl-stoker` on the PATH it is `kubectl stoker`.
//!
//! It talks to the management cluster with its user's kubeconfig and rights, and keeps nothing. It must not do what the
//! operator does: it reads, and writes what a person would write by hand (`spec`, annotations, a bootstrap token).
//!
//! ```text
//!  arguments ──> connect ──> read ──> pure: rows, lines, manifests ──> print
//! ```

mod access;
mod cli;
mod connect;
mod convert;
mod duration;
mod events;
mod join;
mod list;
mod logs;
mod print;
mod steer;
mod table;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::run(cli::Arguments::parse()).await {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Who reads has seen enough: `stokerctl logs demo | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
}
