//! The gateway's process.

use clap::Parser;
use stoker_gateway::args::Args;
use tracing_subscriber::EnvFilter;

// This thread follows the routes and answers probes; connections have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    if args.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(false).init();
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is already installed"))?;
    stoker_gateway::run::run(args).await
}
