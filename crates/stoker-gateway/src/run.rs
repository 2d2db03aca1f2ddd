//! The process: routes, threads that serve, probes, and its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::Args;
use crate::gate::Gate;
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::routes_file::RoutesFile;
use crate::serve::{self, Phase};
use crate::sockets;

/// How often it is looked whether the last connection has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until the process is told to stop, and its connections have ended.
///
/// # Errors
/// There are no routes to begin with, or an address is taken.
pub async fn run(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let routes = Arc::new(Routes::default());
    let metrics = Arc::new(Metrics::new(routes.clone(), args.tenant_metrics.into()));
    let health = Health::new(metrics.clone());
    let mut file = RoutesFile::new(&args.routes);
    let loaded = file.load(&routes);
    loaded.with_context(|| format!("the routes of {}", args.routes.display()))?;
    let files = sockets::raise_file_limit().context("looking for the limit of open files")?;
    let gate = Arc::new(Gate::new(
        args.settings(files),
        routes.clone(),
        metrics.clone(),
    ));
    let (phase, _) = watch::channel(Phase::Serving);
    let threads = args.threads.map_or_else(processors, usize::from).max(1);
    for _ in 0..threads {
        let started = serve::start(gate.clone(), &args.listen, phase.subscribe());
        started.with_context(|| format!("listening at {:?}", args.listen))?;
    }
    health.set_ready(true);
    tracing::info!(routes = routes.len(), threads, listen = ?args.listen, "serving");
    tokio::select! {
        failed = health::serve(args.health_bind_address, health.clone()) => failed.context("health server"),
        () = file.follow(&routes, &metrics) => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = async {
            terminate.recv().await;
            drain(&args, &gate, &health, &phase).await;
        } => Ok(()),
    }
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
