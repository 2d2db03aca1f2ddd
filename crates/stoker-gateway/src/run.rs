//! The process: routes, threads that serve, probes, and its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use stoker_api::BaseDomain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::Args;
use crate::cluster;
use crate::gate::Gate;
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::routes_file::RoutesFile;
use crate::serve::{self, Phase};
use crate::waker::{self, Waker};

/// How often it is looked whether the last connection has ended.
const LOOK: Duration = Duration::from_millis(100);

/// As many open files as this process can have. The kernel refuses to raise the limit where the hard one is above
/// `fs.nr_open`: then it stays.
fn file_limit() -> Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        let files = rlimit::Resource::NOFILE.get_soft();
        let files = files.context("reading the limit of open files")?;
        tracing::warn!(%error, files, "the limit of open files cannot be raised");
        Ok(files)
    })
}

/// Runs until the process is told to stop, and its connections have ended.
///
/// # Errors
/// There is no source of routes, or an address is taken.
pub async fn run(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let routes = Arc::new(Routes::default());
    let metrics = Arc::new(Metrics::new(routes.clone(), args.tenant_metrics.into()));
    let health = Health::new(metrics.clone());
    let source = Source::open(&args, &routes).await?;
    let files = file_limit()?;
    let gate = Gate::new(args.settings(files), routes.clone(), metrics.clone());
    let (waker, telling) = source.waker(&metrics);
    let gate = Arc::new(gate.waking(waker));
    let (phase, _) = watch::channel(Phase::Serving);
    let serving = || {
        start(&args, &gate, &phase)?;
        health.set_ready(true);
        Ok(())
    };
    tokio::select! {
        failed = health::serve(args.health_bind_address, health.clone()) => failed.context("health server"),
        ended = source.follow(&routes, &metrics, serving) => ended,
        () = telling => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = async {
            terminate.recv().await;
            drain(&args, &gate, &health, &phase).await;
        } => Ok(()),
    }
}

/// Where routes come from.
enum Source {
    File(RoutesFile),
    Cluster(kube::Client, BaseDomain),
}

impl Source {
    async fn open(args: &Args, routes: &Routes) -> Result<Self> {
        match (&args.routes, &args.base_domain) {
            (Some(path), _) => {
                let mut file = RoutesFile::new(path);
                let loaded = file.load(routes);
                loaded.with_context(|| format!("the routes of {}", path.display()))?;
                Ok(Self::File(file))
            }
            (None, Some(domain)) => Ok(Self::Cluster(cluster::client().await?, domain.clone())),
            (None, None) => bail!("give --base-domain, or --routes"),
        }
    }

    /// Who is told that tenants that sleep are wanted, where somebody can wake them; and the telling, for ever.
    fn waker<'a>(&self, metrics: &'a Metrics) -> (Option<Waker>, BoxFuture<'a, ()>) {
        match self {
            Self::File(_) => (None, std::future::pending().boxed()),
            Self::Cluster(client, _) => {
                let (waker, wanted) = Waker::new();
                let telling = waker::tell(client.clone(), wanted, metrics).boxed();
                (Some(waker), telling)
            }
        }
    }

    /// Keeps `routes` up to date for ever. `serving` starts what serves them, once they are all known: a gateway that
    /// began sooner would tell clients that their tenant is not here.
    async fn follow(
        self,
        routes: &Routes,
        metrics: &Metrics,
        serving: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::File(file) => {
                serving()?;
                file.follow(routes, metrics).await;
                Ok(())
            }
            Self::Cluster(client, domain) => {
                cluster::follow(client, domain, routes, metrics, serving).await
            }
        }
    }
}

fn start(args: &Args, gate: &Arc<Gate>, phase: &watch::Sender<Phase>) -> Result<()> {
    let threads = args.threads.map_or_else(processors, usize::from).max(1);
    for _ in 0..threads {
        let started = serve::start(gate.clone(), &args.listen, phase.subscribe());
        started.with_context(|| format!("listening at {:?}", args.listen))?;
    }
    tracing::info!(routes = gate.routes().len(), threads, connections = gate.room(), listen = ?args.listen, "serving");
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has load balancers send nobody any more, then takes nobody any more, then waits for those that are here.
async fn drain(args: &Args, gate: &Gate, health: &Health, phase: &watch::Sender<Phase>) {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    health.set_ready(false);
    tracing::info!(open = gate.open(), "draining");
    tokio::time::sleep(seconds(args.drain_delay_seconds)).await;
    phase.send_replace(Phase::Draining);
    let deadline = Instant::now() + seconds(args.drain_seconds);
    while gate.open() > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!(open = gate.open(), "ending");
}
