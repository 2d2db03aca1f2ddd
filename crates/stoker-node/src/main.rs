//! The agent's process.

mod host;

use std::future::Ready;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use ipnet::IpNet;
use stoker_node::listener::{self, Listener};
use stoker_node::tunnel::{Config, Egress, FarEnd, Files, Metrics, Server};
use stoker_node::{gpu, health};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use host::paths::{AUTHORITY, CERTIFICATE, SERVING};

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
    /// Is the API server at an address of this node, for pods.
    Listener(ListenerArgs),
    /// Makes this machine a node of the tenant that a token is for.
    Join(host::join::JoinArgs),
    /// Takes this machine out of its tenant: what join made is removed, and nothing else.
    Leave(host::leave::LeaveArgs),
    /// Goes on as long as the machine is a node: its tunnel, authorities that rotate, what it reports.
    Run(host::run::RunArgs),
    /// Prints the NVIDIA devices of this machine, what keeps them from being used, and the labels of its node, as JSON.
    Gpu,
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
        default_value = AUTHORITY
    )]
    server_ca: PathBuf,

    /// The node's client certificate and its key, PEM.
    #[arg(
        long,
        env = "STOKER_TUNNEL_CLIENT_CERTIFICATE",
        default_value = CERTIFICATE
    )]
    client_certificate: PathBuf,

    /// The kubelet's serving certificate, PEM: it attests the node's addresses. Its key is not used.
    /// Until there is one, API servers may reach this node through others.
    #[arg(
        long,
        env = "STOKER_TUNNEL_NODE_CERTIFICATE",
        default_value = SERVING
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

    #[command(flatten)]
    told: Told,
}

/// Where the tunnel's metrics are to be asked for.
#[derive(clap::Args, Debug)]
pub(crate) struct Told {
    /// `/metrics`, `/livez` and `/readyz` of the tunnel are answered at this `address:port`, over HTTP. Default: nowhere.
    #[arg(long, env = "STOKER_TUNNEL_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
}

impl Told {
    /// Answers as long as `work` takes, or, where others may do so too, `until` one does.
    pub(crate) async fn while_running<T>(
        &self,
        metrics: Arc<Metrics>,
        until: Option<impl Future<Output = ()>>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let Some(address) = self.metrics_listen else {
            return Ok(work.await);
        };
        let listener = health::listen(address, until.is_some()).await;
        let listener = listener.with_context(|| format!("listening at {address}"))?;
        let mut work = pin!(work);
        let until = async {
            match until {
                Some(until) => until.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = &mut work => Ok(done),
            () = until => Ok(work.await),
            () = health::serve(listener, metrics) => anyhow::bail!("metrics are no longer answered"),
        }
    }
}

#[derive(clap::Args, Debug)]
struct ListenerArgs {
    /// Addresses to take connections at, comma-separated: the endpoints of the Service kubernetes. The node is given them, on
    /// its loopback interface.
    #[arg(
        long,
        env = "STOKER_LISTENER_LISTEN",
        value_delimiter = ',',
        required = true
    )]
    listen: Vec<SocketAddr>,

    /// Names or addresses of gateways or of API servers, `host:port`, comma-separated.
    #[arg(
        long,
        env = "STOKER_LISTENER_SERVER",
        value_delimiter = ',',
        required = true
    )]
    server: Vec<Server>,

    /// The tenant's name, told to gateways. Left out where API servers themselves are dialled.
    #[arg(long, env = "STOKER_LISTENER_NAME")]
    name: Option<String>,

    /// How long open connections may live on after SIGTERM, seconds.
    #[arg(long, env = "STOKER_LISTENER_DRAIN_SECONDS", default_value_t = 600)]
    drain_seconds: u64,
}

// One thread: bytes are passed on, and memory counts on every node.
fn main() -> ExitCode {
    let task = Args::parse().task;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = Builder::new_current_thread().enable_all().build();
    let worked = runtime.map_err(Into::into).and_then(|runtime| {
        let worked = runtime.block_on(work(task));
        // Files of a driver that hangs are not waited for.
        runtime.shutdown_background();
        worked
    });
    match worked {
        Ok(code) => code,
        // For whoever stands at the machine: what is wrong, and no trace of calls.
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn work(task: Task) -> Result<ExitCode> {
    // systemd and runtimes leave a process 1,024; each stream is one, each connection of a pod two.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        // Where the hard limit is above `fs.nr_open`: better few than none.
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    match task {
        Task::Tunnel(args) => {
            let metrics = Arc::<Metrics>::default();
            let (told, config, drain) = args.parts();
            let stop = stop()?;
            let stop = async {
                stop.await;
                drain
            };
            let work = FarEnd::new(config, metrics.clone()).run(stop);
            told.while_running(metrics, None::<Ready<()>>, work).await?;
        }
        Task::Listener(args) => {
            let (drain, stop) = (Duration::from_secs(args.drain_seconds), stop()?);
            let stop = async {
                stop.await;
                drain
            };
            Listener::open(args.into())?.run(stop).await;
        }
        Task::Join(args) => host::join::join(args).await?,
        Task::Leave(args) => host::leave::leave(args).await?,
        Task::Run(args) => return Box::pin(host::run::run(&args, stop()?)).await,
        Task::Gpu => print_devices().await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Until somebody has the process end. Only for tasks that end in good order by it: once this is called, a signal alone ends
/// nothing.
fn stop() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn print_devices() -> Result<()> {
    let machine = gpu::Observer::default().look(Path::new("/")).await;
    let labels = gpu::labels(&machine);
    let told = serde_json::json!({ "machine": machine, "labels": labels });
    writeln!(std::io::stdout(), "{told:#}").context("printing")
}

impl TunnelArgs {
    fn parts(self) -> (Told, Config, Duration) {
        let config = Config {
            server: self.server,
            files: Files {
                server_ca: self.server_ca,
                client_certificate: self.client_certificate,
                node_certificate: self.node_certificate,
            },
            egress: Egress::new(self.allow, self.deny),
        };
        (self.told, config, Duration::from_secs(self.drain_seconds))
    }
}

impl From<ListenerArgs> for listener::Config {
    fn from(args: ListenerArgs) -> Self {
        Self {
            listen: args.listen,
            servers: args.server,
            name: args.name,
        }
    }
}
