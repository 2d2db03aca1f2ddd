//! The process: servers, lease, watches, loops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, TryFutureExt};
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{applier, reflector};
use kube::{Client, ResourceExt};
use stoker_api::v1alpha1::{DataStore, JoinToken, TenantControlPlane};
use stoker_kube::{Election, Events, Writer};
use stoker_pki::EscrowKey;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::Instrument;

use crate::admission::{self, Reviewer};
use crate::args::Args;
use crate::contained::contained;
use crate::context::{Context, DATA_STORE_LAG, Stores, TENANT_LAG, TenantClient};
use crate::health::{self, Health};
use crate::join_token::{self, JoinTokens};
use crate::kubeconfig_generator::{self, Kubeconfigs};
use crate::management_networks::Networks;
use crate::metrics::{Controller, Metrics, Side};
use crate::routes::Routes;
use crate::soon::Soon;
use crate::{FIELD_MANAGER, data_store, escrow_key, tenant, watches};

/// Passes at the same time for each that may work on the management side: most of them wait for a tenant or a pool. A
/// pool that falls silent holds all of its tenants that are at work then, until the first call to it has timed out.
const PASSES: u16 = 32;
/// `DataStore`s looked at at the same time: one that hangs takes seconds.
const DATA_STORE_PASSES: u16 = 16;
/// For so long after a start the first pass over a tenant waits for pools that are not looked at yet: their hosts are in every
/// tenant's policy. A pool of which one member is silent is looked at within 7 s (`CALL_TIMEOUT`, then the diagnosis).
const FIRST_LOOKS: Duration = Duration::from_secs(10);
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// Runs until the process is told to stop or loses the lease.
///
/// # Errors
/// The cluster cannot be reached at all, a port is taken, or the lease is lost: the process must
/// end, and start anew if it is to go on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(Health::default());
    let client = management_client(&metrics).await?;
    let probes = health::serve_probes(args.health_bind_address, health.clone())
        .map_err(|error| anyhow::anyhow!("health server: {error}"));
    let exposition = health::serve_metrics(args.metrics_bind_address, metrics.clone())
        .map_err(|error| anyhow::anyhow!("metrics server: {error}"));
    let admission = serve_admission(&args, client.clone(), metrics.clone());
    tokio::select! {
        served = async { tokio::try_join!(probes, exposition, admission) } => served.map(|_| ()),
        done = health.alive_while(lead(args, client, metrics, health.clone())) => done,
    }
}

/// The webhook, where one is asked for; else nothing, for ever.
fn serve_admission(
    args: &Args,
    client: Client,
    metrics: Arc<Metrics>,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let reviewer = Arc::new(Reviewer::new(client.clone(), args, metrics));
    let (address, namespace) = (args.webhook_bind_address, args.pod_namespace.clone());
    async move {
        match address {
            Some(address) => admission::serve(address, client, &namespace, reviewer).await,
            None => std::future::pending().await,
        }
    }
}

async fn management_client(metrics: &Arc<Metrics>) -> anyhow::Result<Client> {
    let config = kube::Config::infer().await?;
    let count = metrics.counter(Side::Management);
    Ok(stoker_kube::management_client(config, count)?)
}

/// SIGTERM, as a kubelet sends, or SIGINT, as a person does.
async fn stopped() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Waits for the lease, then works until it is lost.
async fn lead(
    args: Args,
    client: Client,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> anyhow::Result<()> {
    if !args.leader_elect {
        metrics.leading(true);
        return tokio::select! {
            done = Box::pin(work(args, client, Arc::new(stoker_kube::tenant_client), metrics, health)) => done,
            () = stopped() => Ok(()),
        };
    }
    // A standby is ready: it stands by. Once it leads, it is when its caches are filled.
    health.set_ready(true);
    let election = Election::new(
        client.clone(),
        &args.pod_namespace,
        FIELD_MANAGER,
        &args.pod_name,
    );
    let held = tokio::select! {
        held = election.acquire() => held?,
        () = stopped() => return Ok(()),
    };
    metrics.leading(true);
    tracing::info!(holder = %args.pod_name, "leading");
    let ended = tokio::select! {
        done = Box::pin(work(args, client, Arc::new(stoker_kube::tenant_client), metrics.clone(), health)) => done,
        lost = held.hold() => Err(anyhow::anyhow!("lease lost: {lost:?}")),
        () = stopped() => Ok(()),
    };
    metrics.leading(false);
    if ended.is_ok() {
        tracing::info!("stopping: the lease is handed on");
        held.release().await;
    }
    ended
}

/// What the work is done with.
pub(crate) struct Parts {
    pub(crate) ctx: Arc<Context>,
    /// They fill the caches of `ctx`.
    pub(crate) watches: watches::Watches,
    /// Whom `ctx` woke.
    pub(crate) woken: mpsc::UnboundedReceiver<ObjectRef<TenantControlPlane>>,
    pub(crate) woken_data_stores: mpsc::UnboundedReceiver<ObjectRef<DataStore>>,
    pub(crate) woken_kubeconfigs: kubeconfig_generator::state::Woken,
    pub(crate) woken_join_tokens: mpsc::UnboundedReceiver<ObjectRef<JoinToken>>,
}

pub(crate) fn parts(
    args: Args,
    client: Client,
    tenant_client: TenantClient,
    metrics: Arc<Metrics>,
    escrow_key: EscrowKey,
) -> Parts {
    let (tenants, tenants_writer) = reflector::store();
    let (data_stores, data_stores_writer) = reflector::store();
    let (services, services_writer) = reflector::store();
    let (deployments, deployments_writer) = reflector::store();
    let (wake, woken) = mpsc::unbounded_channel();
    let (wake_data_store, woken_data_stores) = mpsc::unbounded_channel();
    let (generators, generators_writer) = reflector::store();
    let (kubeconfigs, woken_kubeconfigs) = Kubeconfigs::new(generators);
    let (tokens, tokens_writer) = reflector::store();
    let (join_tokens, woken_join_tokens) = JoinTokens::new(tokens);
    let (networks, management_networks) = watch::channel(Networks::default());
    let ctx = Context {
        writer: Writer::new(client.clone(), FIELD_MANAGER),
        events: Events::new(client.clone(), FIELD_MANAGER, &args.pod_name),
        stores: Stores {
            tenants,
            data_stores,
            services,
            deployments,
        },
        management_networks,
        routes: Routes::default(),
        networks_doubted: Notify::default(),
        escrow_key,
        pools: data_store::Pools::default(),
        looks: data_store::Looks::default(),
        tenants: tenant::Tenants::default(),
        rollouts: tenant::rollout::Rollouts::default(),
        join_tokens,
        kubeconfigs,
        work: Semaphore::new(usize::from(args.max_concurrent_reconciles)),
        soon: Soon::new(wake.clone(), TENANT_LAG),
        later: Soon::new(wake.clone(), tenant::status::urgency::PROGRESS),
        data_stores_soon: Soon::new(wake_data_store.clone(), DATA_STORE_LAG),
        wake,
        wake_data_store,
        tenant_failures: crate::retry::Backoff::default(),
        data_store_failures: crate::retry::Backoff::default(),
        args,
        client,
        tenant_client,
        metrics,
    };
    Parts {
        ctx: Arc::new(ctx),
        watches: watches::Watches {
            tenants: tenants_writer,
            data_stores: data_stores_writer,
            generators: generators_writer,
            join_tokens: tokens_writer,
            services: services_writer,
            deployments: deployments_writer,
            networks,
        },
        woken,
        woken_data_stores,
        woken_kubeconfigs,
        woken_join_tokens,
    }
}

/// What the holder of the lease does, without lease and servers: watches and reconciles for ever.
///
/// # Errors
/// The watches ended.
pub async fn work(
    args: Args,
    client: Client,
    tenant_client: TenantClient,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> anyhow::Result<()> {
    health.set_ready(false);
    let escrow_key = escrow_key::read_or_make(&client, &args.pod_namespace).await?;
    let Parts {
        ctx,
        watches,
        woken,
        woken_data_stores,
        woken_kubeconfigs,
        woken_join_tokens,
    } = parts(args, client, tenant_client, metrics, escrow_key);
    let counted = Arc::clone(&ctx);
    ctx.metrics.follow(move || counted.fleet());
    let first = watches::First::default();
    let watching = watches.run(ctx.clone(), first.clone());
    let reconciling = async {
        // Nobody else may wait so for one of these: of several a cache wakes only the last.
        ctx.stores.tenants.wait_until_ready().await?;
        ctx.stores.data_stores.wait_until_ready().await?;
        ctx.stores.services.wait_until_ready().await?;
        ctx.stores.deployments.wait_until_ready().await?;
        watches::listed(&first.pods).await;
        let mut loops = JoinSet::new();
        loops.spawn(data_stores_loop(ctx.clone(), woken_data_stores));
        let _ = timeout(FIRST_LOOKS, every_pool_looked_at(&ctx)).await;
        first.pools.store(true, Ordering::Release);
        watches::listed(&first.networks).await;
        tenant::rollout::resume(&ctx);
        health.set_ready(true);
        tracing::info!(tenants = ctx.stores.tenants.len(), "caches filled");
        loops.spawn(tenants_loop(ctx.clone(), woken));
        loops.spawn(kubeconfig_generator::work::work(
            ctx.clone(),
            woken_kubeconfigs,
        ));
        loops.spawn(join_token::work::work(ctx.clone(), woken_join_tokens));
        loops.spawn(watches::watch_leaving_namespaces(ctx.clone()));
        loops.spawn(watches::watch_wake_requests(ctx.clone()));
        if ctx.args.webhook_bind_address.is_some() {
            let namespace = ctx.args.pod_namespace.clone();
            loops.spawn(admission::keep(ctx.client.clone(), namespace));
        }
        loops.join_all().await;
        anyhow::Ok(())
    };
    tokio::select! {
        () = watching => anyhow::bail!("the watches ended"),
        ended = reconciling => ended,
    }
}

/// Before the first pass over a tenant: which hosts the pools are on is in every tenant's policy.
async fn every_pool_looked_at(ctx: &Context) {
    let known = |store: &Arc<DataStore>| ctx.pools.get(&store.name_any()).is_some();
    while !ctx.stores.data_stores.state().iter().all(known) {
        sleep(FIRST_LOOK).await;
    }
}

async fn tenants_loop(
    ctx: Arc<Context>,
    woken: mpsc::UnboundedReceiver<ObjectRef<TenantControlPlane>>,
) {
    let passes = ctx.args.max_concurrent_reconciles.saturating_mul(PASSES);
    let config = controller::Config::default().concurrency(passes);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<_, std::convert::Infallible>);
    let reconcile = |object: Arc<TenantControlPlane>, ctx: Arc<Context>| {
        let span = tracing::info_span!(
            "tenant",
            namespace = object.namespace().unwrap_or_default(),
            tenant = object.name_any(),
            generation = object.metadata.generation,
        );
        Box::pin(tenant::reconcile::reconcile(object, ctx).instrument(span))
    };
    applier(
        reconcile,
        tenant_failed,
        ctx.clone(),
        ctx.stores.tenants.clone(),
        queue,
        config,
    )
    .for_each(async |_| {})
    .await;
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that `applier` asks for"
)]
fn tenant_failed(
    object: Arc<TenantControlPlane>,
    error: &tenant::Error,
    ctx: Arc<Context>,
) -> Action {
    ctx.metrics.failed(Controller::Tenant, error.category());
    let wait = ctx
        .tenant_failures
        .after_failure(ObjectRef::from_obj(object.as_ref()));
    tracing::warn!(
        namespace = object.namespace().unwrap_or_default(),
        tenant = object.name_any(),
        reason = error.category(),
        error = error.describe(),
        retry_in = ?wait,
        "pass failed",
    );
    Action::requeue(wait)
}

async fn data_stores_loop(ctx: Arc<Context>, woken: mpsc::UnboundedReceiver<ObjectRef<DataStore>>) {
    let config = controller::Config::default().concurrency(DATA_STORE_PASSES);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<_, std::convert::Infallible>);
    let reconcile = |object: Arc<DataStore>, ctx: Arc<Context>| {
        let span = tracing::info_span!("data_store", data_store = object.name_any());
        Box::pin(contained(data_store::reconcile::reconcile(object, ctx)).instrument(span))
    };
    let failed = |object: Arc<DataStore>,
                  error: &data_store::reconcile::Error,
                  ctx: Arc<Context>| {
        ctx.metrics.failed(Controller::DataStore, error.category());
        let wait = ctx
            .data_store_failures
            .after_failure(ObjectRef::from_obj(object.as_ref()));
        tracing::warn!(data_store = object.name_any(), error = %error, retry_in = ?wait, "pass failed");
        Action::requeue(wait)
    };
    applier(
        reconcile,
        failed,
        ctx.clone(),
        ctx.stores.data_stores.clone(),
        queue,
        config,
    )
    .for_each(async |_| {})
    .await;
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn a_standby_that_comes_to_lead_is_not_ready_while_its_caches_fill() {
        let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let health = Arc::new(Health::default());
        health.set_ready(true);
        let work = work(
            Args::parse_from(["stoker-operator"]),
            Client::new(service, "default"),
            Arc::new(stoker_kube::tenant_client),
            Arc::default(),
            health.clone(),
        );
        tokio::select! {
            ended = Box::pin(work) => panic!("{ended:?}"),
            asked = server.next_request() => assert!(asked.is_some()),
        }
        assert!(!health.is_ready());
    }
}
