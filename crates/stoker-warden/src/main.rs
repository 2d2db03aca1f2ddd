//! The warden's process.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Parser;
use stoker_warden::serve;
use tokio::signal::unix::{SignalKind, signal};

/// Guards a tenant's API server, from within its pod.
#[derive(Parser, Debug)]
#[command(name = "stoker-warden", version)]
struct Args {
    /// Address, on loopback, at which the API server asks the guard.
    #[arg(long, env = "STOKER_GUARD_ADDRESS")]
    guard_address: SocketAddr,

    /// Port, on every address, that serves /livez.
    #[arg(long, env = "STOKER_HEALTH_PORT")]
    health_port: u16,
}

// One thread: an answer takes microseconds.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut end = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        failed = serve::guard(args.guard_address) => failed,
        failed = serve::health(args.health_port) => failed,
        _ = end.recv() => Ok(()),
    }
}
