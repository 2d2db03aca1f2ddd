//! The tenant's own side of a pass: wait for its API server, then keep our objects there.

mod kept;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use kube::runtime::reflector::ObjectRef;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{Endpoint, Exposure, Host, Keys};
use stoker_tenant::{Access, NodeListeners, TunnelAgents};
use time::OffsetDateTime;

use self::kept::Kept;
use super::addresses::{is_name, missing_family, resolve};
use super::connection::{self, Connection, answers, await_ready, connect, mint};
use super::error::Error;
use super::hibernation;
use super::serving;
use super::state::{TenantState, lock};
use super::status::{Aspect, Findings};
use super::task::Task;
use super::trouble::Trouble;
use crate::contained::contained;
use crate::context::Context;
use crate::join_token::attend;
use crate::metrics::Step;

/// Within which an API server that runs already answers a new connection.
const SOON: Duration = Duration::from_secs(2);
/// An API server that has answered is not doubted within.
const FRESH: Duration = Duration::from_secs(2);
/// Between two looks at the addresses behind an endpoint that is a name.
const RESOLVE_AGAIN: time::Duration = time::Duration::MINUTE;

/// The connection into a tenant, and what is done over it.
#[derive(Default)]
pub enum Inside {
    /// None: asleep, or no pod has an address.
    #[default]
    Closed,
    /// An API server is starting.
    Starting {
        /// The connection to it.
        connection: Connection,
        /// Set once `/readyz` answered.
        ready: Arc<AtomicBool>,
        /// Waits for `/readyz`.
        _wait: Task,
    },
    /// The API server answers.
    Open {
        /// The connection to it.
        connection: Connection,
        /// Since when.
        since: Instant,
        /// Our objects inside the tenant.
        kept: Kept,
        /// Whether API priority is among what is watched.
        prioritized: bool,
        /// Answers kubelets that ask for serving certificates.
        _serving: Task,
        /// Attends to machines that join.
        _joining: Task,
    },
}

/// Waits for the tenant's API server and applies what belongs inside the tenant. `keys` are the tenant's, if
/// this pass has read them. If that panics, the rest of the pass goes on: what a tenant answers is the tenant's.
///
/// # Errors
/// The tenant's API refused a write.
pub(super) async fn configure(
    object: &TenantControlPlane,
    tenant: &Tenant,
    exposure: &Exposure,
    keys: Option<&Keys>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let kept_up = keep_up(object, tenant, exposure, keys, state, ctx, findings);
    let configured = contained(kept_up).await;
    if let Err(error) = &configured {
        findings.error(Aspect::TenantConfigured, error);
    }
    configured
}

async fn keep_up(
    object: &TenantControlPlane,
    tenant: &Tenant,
    exposure: &Exposure,
    keys: Option<&Keys>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut inside = state.inside.lock().await;
    if tenant.replicas == 0 {
        *inside = Inside::Closed;
        *lock(&state.credential) = None;
        // Before it wakes, its place is made sure of.
        state.set_claimed(false);
        *lock(&state.look_again) = None;
        findings.fails(
            Aspect::ApiServerAvailable,
            "Sleeping",
            hibernation::why_asleep(findings.hibernation.as_ref(), findings.no_replicas),
        );
        return Ok(());
    }
    let Some(address) = current_address(&inside, state) else {
        if !matches!(*inside, Inside::Closed) {
            // Its API server is away, perhaps because its etcd user is: the claim is made sure of again.
            *inside = Inside::Closed;
            state.set_claimed(false);
        }
        if let Some(keys) = keys {
            // Saves reading them again when one has.
            *lock(&state.credential) = Some(mint(keys)?);
        }
        let usual = "no control-plane pod has an address yet";
        not_yet(state, findings, "PodsStarting", usual.to_owned());
        return Ok(());
    };
    *lock(&state.exposure) = Some(exposure.clone());
    advance(&mut inside, address, object, tenant, keys, state, ctx).await?;
    let Inside::Open {
        connection, kept, ..
    } = &mut *inside
    else {
        let usual = format!("the API server at {address} does not answer /readyz yet");
        not_yet(state, findings, "APIServerStarting", usual);
        return Ok(());
    };
    findings.holds(
        Aspect::ApiServerAvailable,
        "Answering",
        "an API server answers /readyz",
    );
    let Some(endpoint) = &exposure.endpoint else {
        findings.fails(
            Aspect::TenantConfigured,
            "EndpointPending",
            "the Service has no address yet: waiting for the load balancer or node port",
        );
        return Ok(());
    };
    let resolved = exposure.direct.iter().any(is_name);
    *lock(&state.look_again) = Some(if resolved {
        connection
            .expires
            .min(OffsetDateTime::now_utc() + RESOLVE_AGAIN)
    } else {
        connection.expires
    });
    let started = Instant::now();
    let known = object
        .status
        .as_ref()
        .is_some_and(|status| status.kubernetes_resources.version.version.is_some());
    let way = Way {
        exposure,
        endpoint,
        node_image: &ctx.args.node_image,
    };
    let resolved = resolve(exposure).await;
    let addresses = resolved.as_ref().cloned().unwrap_or_default();
    let access = way.access(addresses, &connection.certificate_authority);
    let client = &connection.client;
    let watch = |ledger, written| {
        let prioritized = tenant.api_priority.is_some();
        connection::watch(
            client,
            ledger,
            written,
            prioritized,
            &ObjectRef::from_obj(object),
            ctx,
        )
    };
    let applied = kept.keep(client, tenant, access, known, watch).boxed();
    if applied.await? {
        ctx.metrics.step(Step::Inside, started.elapsed());
    }
    resolved?;
    say_applied(tenant, exposure, findings);
    Ok(())
}

/// An API server answers. Until the kubelet's probe says so too, the Service leads nowhere; what belongs inside need not
/// wait for that.
pub(super) fn say_unserved(state: &TenantState, findings: &mut Findings) {
    if !lock(&state.pods).any_ready() {
        let usual = "an API server answers, but the kubelet has no control-plane pod ready yet: the Service refuses everybody";
        not_yet(state, findings, "PodsStarting", usual.to_owned());
    }
}

/// Everything is applied, but for what pods could not dial.
fn say_applied(tenant: &Tenant, exposure: &Exposure, findings: &mut Findings) {
    match missing_family(&tenant.network.service_cidrs, &exposure.direct) {
        Some(family) => findings.fails(
            Aspect::TenantConfigured,
            "EndpointPending",
            format!(
                "the Service has no {family} address, which the tenant's own pods dial since {family} is the first family of spec.networkProfile.serviceCidrs: waiting for the load balancer, which gives one if the Service has that family (spec.controlPlane.service.ipFamilies)"
            ),
        ),
        None => findings.holds(
            Aspect::TenantConfigured,
            "Configured",
            "every object inside the tenant is applied",
        ),
    }
}

/// No API server is there for people yet: because of what keeps its pods from running, else as `usual`.
fn not_yet(state: &TenantState, findings: &mut Findings, reason: &'static str, usual: String) {
    let trouble = lock(&state.pods).trouble().cloned();
    let refused = || {
        let deployment = findings.deployment.as_ref();
        let without_pods = || lock(&state.pods).is_empty();
        deployment
            .and_then(Trouble::of_deployment)
            .filter(|_| without_pods())
    };
    let (reason, message) = match trouble.or_else(refused) {
        Some(trouble) => (trouble.reason, trouble.message),
        None => (reason, usual),
    };
    findings.fails(Aspect::ApiServerAvailable, reason, message);
}

/// Stays with the pod that is connected while it serves.
fn current_address(inside: &Inside, state: &TenantState) -> Option<IpAddr> {
    let pods = lock(&state.pods);
    let connected = match inside {
        Inside::Closed => None,
        Inside::Starting { connection, .. } | Inside::Open { connection, .. } => {
            Some(connection.address)
        }
    };
    connected
        .filter(|address| pods.serves(*address))
        .or_else(|| pods.address())
}

/// Closed → starting → open; back to starting when the pod or the credential changed.
async fn advance(
    inside: &mut Inside,
    address: IpAddr,
    object: &TenantControlPlane,
    tenant: &Tenant,
    keys: Option<&Keys>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
) -> Result<(), Error> {
    if is_stale(inside, address, keys, state).await {
        let at_hand = lock(&state.credential).take();
        let connection = connect(address, tenant, keys, at_hand, ctx).await?;
        // Where the kubelet has it ready already, the status need not say meanwhile that it does not answer.
        let answering =
            lock(&state.pods).is_ready(address) && answers_soon(&connection.client).await;
        let ready = Arc::new(AtomicBool::new(answering));
        let reference = ObjectRef::from_obj(object);
        let wait = await_ready(&connection, &ready, &reference, ctx);
        *inside = Inside::Starting {
            connection,
            ready,
            _wait: wait,
        };
    }
    let opens = match &*inside {
        Inside::Starting {
            connection, ready, ..
        } if ready.load(Ordering::Acquire) => Some((connection.clone(), Instant::now())),
        // Other kinds are to be watched: everything is looked at anew.
        Inside::Open {
            connection,
            since,
            prioritized,
            ..
        } if *prioritized != tenant.api_priority.is_some() => Some((connection.clone(), *since)),
        _ => None,
    };
    if let Some((connection, since)) = opens {
        let reference = ObjectRef::from_obj(object);
        let client = connection.client.clone();
        let serve = move |tenant, ctx| serving::approve(client.clone(), tenant, ctx);
        let client = connection.client.clone();
        let join = move |tenant, ctx| attend::follow(client.clone(), tenant, ctx);
        *inside = Inside::Open {
            connection: connection.clone(),
            since,
            kept: Kept::new(),
            prioritized: tenant.api_priority.is_some(),
            _serving: Task::spawn("kubelets' serving certificates", &reference, ctx, serve),
            _joining: Task::spawn("machines that join", &reference, ctx, join),
        };
    }
    Ok(())
}

async fn answers_soon(client: &kube::Client) -> bool {
    let answer = tokio::time::timeout(SOON, answers(client)).await;
    answer.unwrap_or_default()
}

/// Whether the connection is of no use any more: another pod, an old credential or authority, or no answer.
async fn is_stale(
    inside: &Inside,
    address: IpAddr,
    keys: Option<&Keys>,
    state: &TenantState,
) -> bool {
    let trusted = keys.map(|keys| keys.certificate_authority.trusted());
    let of_no_use = |connection: &Connection| {
        connection.address != address
            || connection.expires <= OffsetDateTime::now_utc()
            || trusted
                .as_ref()
                .is_some_and(|now| *now != connection.certificate_authority)
    };
    match inside {
        Inside::Closed => true,
        Inside::Starting { connection, .. } => of_no_use(connection),
        Inside::Open {
            connection, since, ..
        } => {
            let sure = since.elapsed() < FRESH || lock(&state.pods).is_ready(address);
            let gone = !sure && !answers(&connection.client).await;
            if gone {
                // Perhaps its etcd user is: the claim is made sure of again.
                state.set_claimed(false);
            }
            gone || of_no_use(connection)
        }
    }
}

/// How a tenant's nodes and pods reach its API servers.
struct Way<'a> {
    exposure: &'a Exposure,
    endpoint: &'a Endpoint,
    node_image: &'a str,
}

impl Way<'_> {
    fn access(&self, addresses: Vec<IpAddr>, certificate_authority: &str) -> Access {
        let server = self.exposure.tunnel.as_ref().map(ToString::to_string);
        Access {
            host: match &self.endpoint.host {
                Host::Address(ip) => ip.to_string(),
                Host::Name(name) => name.clone(),
            },
            port: self.endpoint.port,
            addresses,
            direct_port: self.exposure.direct_port().unwrap_or(self.endpoint.port),
            listeners: self.exposure.listeners.as_ref().map(|found| NodeListeners {
                servers: found.servers.iter().map(ToString::to_string).collect(),
                name: found.name.clone(),
                image: self.node_image.to_owned(),
            }),
            tunnel: server.map(|server| TunnelAgents {
                server,
                image: self.node_image.to_owned(),
            }),
            certificate_authority: certificate_authority.to_owned(),
        }
    }
}
