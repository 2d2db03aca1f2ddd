//! The agent's process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use ipnet::IpNet;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files, Server};
use tokio::signal::unix::{SignalKind, signal};

/// The agent on a tenant's node.
#[derive(Parser, Debug)]
#[command(name = "stoker-node", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Keeps the way from the API server to this node open, by dialling out.
    Tunnel(TunnelArgs),
}

#[derive(clap::Args, Debug)]
struct TunnelArgs {
    /// The tenant's name or address, and its tunnel port: `host:port`.
    #[arg(long, env = "STOKER_TUNNEL_SERVER")]
    server: Server,

    /// Authorities of the tenant, PEM.
    #[arg(
        long,
        env = "STOKER_TUNNEL_SERVER_CA",
        default_value = "/etc/kubernetes/pki/ca.crt"
    )]
    server_ca: PathBuf,

    /// The node's client certificate and its key, PEM.
    #[arg(
        long,
        env = "STOKER_TUNNEL_CLIENT_CERTIFICATE",
        default_value = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    )]
    client_certificate: PathBuf,

    /// The kubelet's serving certificate, PEM: it attests the node's addresses. Its key is not used.
    /// Until there is one, API servers may reach this node through others.
    #[arg(
        long,
        env = "STOKER_TUNNEL_NODE_CERTIFICATE",
        default_value = "/var/lib/kubelet/pki/kubelet-server-current.pem"
    )]
    node_certificate: PathBuf,

    /// Networks that are not dialled, beside loopback, link-local, multicast and metadata addresses.
    #[arg(long, env = "STOKER_TUNNEL_DENY", value_delimiter = ',')]
    deny: Vec<IpNet>,

    /// The only networks that are dialled. Default: all that are not denied.
    #[arg(long, env = "STOKER_TUNNEL_ALLOW", value_delimiter = ',')]
    allow: Vec<IpNet>,

    /// How long open streams may run on after SIGTERM, seconds.
    #[arg(long, env = "STOKER_TUNNEL_DRAIN_SECONDS", default_value_t = 25)]
    drain_seconds: u64,
}

// One thread: bytes are passed on, and memory counts on every node.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Task::Tunnel(args) = Args::parse().task;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let far_end = FarEnd::new(Config {
        server: args.server,
        files: Files {
            server_ca: args.server_ca,
            client_certificate: args.client_certificate,
            node_certificate: args.node_certificate,
        },
        egress: Egress::new(args.allow, args.deny),
        drain: Duration::from_secs(args.drain_seconds),
    });
    far_end
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}
