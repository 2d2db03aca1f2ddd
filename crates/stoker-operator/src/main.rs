//! The management binary.

use clap::Parser;
use stoker_operator::args::{Args, Command};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// kube's span around a pass says what ours says.
const LOGS: &str = "info,kube_runtime=warn";

// One thread: what a pass waits for is the network, and a task that wakes another thread costs more
// than most of them do. 35 ms per tenant made is 28 tenants a second, more than an API server takes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGS));
    // What a command prints is for other programs to read.
    let writer = match args.command {
        None => BoxMakeWriter::new(std::io::stdout),
        Some(_) => BoxMakeWriter::new(std::io::stderr),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    if args.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(false).init();
    }
    if let Err(error) = stoker_operator::scheduling::give_way() {
        tracing::debug!(%error, "not, or not wholly, put under SCHED_BATCH");
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is already installed"))?;
    match &args.command {
        Some(Command::Recover { data_store }) => {
            Box::pin(stoker_operator::recover::recover(&args, data_store)).await
        }
        None => Box::pin(stoker_operator::run::run(args)).await,
    }
}
