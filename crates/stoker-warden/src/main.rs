//! The warden's process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser;
use stoker_warden::metrics::Metrics;
use stoker_warden::serve;
use stoker_warden::tunnel::{self, Config, Files};
use tokio::signal::unix::{SignalKind, signal};

/// Guards a tenant's API server, from within its pod, and is its way to the tenant's nodes.
#[derive(Parser, Debug)]
#[command(name = "stoker-warden", version)]
struct Args {
    /// Address, on loopback, at which the API server asks the guard.
    #[arg(long, env = "STOKER_GUARD_ADDRESS")]
    guard_address: SocketAddr,

    /// Port, on every address, that serves /livez, and with a tunnel /metrics.
    #[arg(long, env = "STOKER_HEALTH_PORT")]
    health_port: u16,

    #[command(flatten)]
    tunnel: Option<TunnelArgs>,
}

/// The tunnel's near end; without these there is none.
#[derive(clap::Args, Debug)]
#[group(requires_all = ["socket", "port", "certificate", "key", "client_ca"])]
struct TunnelArgs {
    /// Socket at which the API server asks for streams.
    #[arg(long = "tunnel-socket", env = "STOKER_TUNNEL_SOCKET", required = false)]
    socket: PathBuf,

    /// Port, on every address, that agents dial.
    #[arg(long = "tunnel-port", env = "STOKER_TUNNEL_PORT", required = false)]
    port: u16,

    /// Certificate shown to agents, PEM.
    #[arg(
        long = "tunnel-certificate",
        env = "STOKER_TUNNEL_CERTIFICATE",
        required = false
    )]
    certificate: PathBuf,

    /// Its key, PEM.
    #[arg(long = "tunnel-key", env = "STOKER_TUNNEL_KEY", required = false)]
    key: PathBuf,

    /// Authorities of the tenant, PEM: their nodes are let in.
    #[arg(
        long = "tunnel-client-ca",
        env = "STOKER_TUNNEL_CLIENT_CA",
        required = false
    )]
    client_ca: PathBuf,

    /// File with the number of control-plane pods. Default: there is one.
    #[arg(
        long = "tunnel-server-count-file",
        env = "STOKER_TUNNEL_SERVER_COUNT_FILE"
    )]
    server_count_file: Option<PathBuf>,

    /// Where the API server listens, on loopback: at its end the tunnel is kept as long as that one needs it.
    #[arg(long = "tunnel-api-server", env = "STOKER_TUNNEL_API_SERVER")]
    api_server: Option<SocketAddr>,
}

// One thread: an answer takes microseconds.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    // Runtimes leave a process 1,024; each agent and each stream is one.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        // Where the hard limit is above `fs.nr_open`: better few than none.
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let metrics: Arc<Metrics> = Arc::default();
    let told = args.tunnel.is_some().then(|| metrics.clone());
    let mut end = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        failed = serve::guard(args.guard_address) => failed,
        failed = serve::health(args.health_port, told) => failed,
        () = near_end(args.tunnel, metrics, async { _ = end.recv().await }) => Ok(()),
    }
}

/// Returns at the end of the process.
async fn near_end(args: Option<TunnelArgs>, metrics: Arc<Metrics>, end: impl Future<Output = ()>) {
    let Some(args) = args else {
        return end.await;
    };
    let config = Config {
        socket: args.socket,
        port: args.port,
        files: Files {
            certificate: args.certificate,
            key: args.key,
            client_ca: args.client_ca,
        },
        server_count: args.server_count_file,
        api_server: args.api_server,
    };
    tunnel::keep_counted(config, metrics, end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: [&str; 3] = [
        "stoker-warden",
        "--guard-address=127.0.0.1:1",
        "--health-port=2",
    ];
    const TUNNEL: [&str; 5] = [
        "--tunnel-socket=/socket",
        "--tunnel-port=3",
        "--tunnel-certificate=/tls.crt",
        "--tunnel-key=/tls.key",
        "--tunnel-client-ca=/ca.crt",
    ];

    #[test]
    fn the_tunnel_is_asked_for_as_a_whole_or_not_at_all() {
        let alone = Args::try_parse_from(GUARD).unwrap();
        assert!(alone.tunnel.is_none());
        let whole = Args::try_parse_from(GUARD.iter().chain(&TUNNEL)).unwrap();
        assert_eq!(whole.tunnel.unwrap().port, 3);
        for missing in 0..TUNNEL.len() {
            let some = TUNNEL
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != missing);
            let arguments = GUARD.iter().chain(some.map(|(_, argument)| argument));
            let refused = Args::try_parse_from(arguments).unwrap_err().to_string();
            assert!(refused.contains("--tunnel-"), "{refused}");
        }
    }
}
