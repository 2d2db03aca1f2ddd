//! A connection to one API server of a tenant: its credential, the wait for `/readyz`, and the watch of
//! our objects there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::reflector::ObjectRef;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{self as control_plane, Keys};
use stoker_kube::{Fingerprint, Ledger, ObjectKey, Observation, OwnedWatch, TenantEndpoint};
use stoker_pki::{KeyedCertificate, LeafRequest, LeafUsage};
use stoker_tenant::WatchedKind;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::damper::Damper;
use super::error::Error;
use super::secrets::{NamesThere, TenantSecrets};
use super::task::Task;
use crate::context::Context;
use crate::metrics::Side;

/// Between two looks whether an API server that is starting listens: it is not ready within a second after that.
const POLL_LISTEN: Duration = Duration::from_millis(400);
/// One that serves looks after its roles and priority classes a second later, and is not ready before, even if they are
/// there (`pkg/registry/rbac/rest`, `pkg/registry/scheduling/rest`).
const FIRST_POLL: Duration = Duration::from_millis(850);
/// From the roles that tell that it is nearly done to the end.
const LAST_STEPS: Duration = Duration::from_millis(75);
/// One that does not show its roles for so long is asked all the same, once.
const ROLES: Duration = Duration::from_secs(5);
/// Between two looks whether it is. The kubelet looks every second.
const POLL: Duration = Duration::from_millis(400);
/// An API server that has not answered for this long is looked at less often.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL_LATER: Duration = Duration::from_secs(2);
/// Objects per kind that a watch inside a tenant remembers: many times what we put there, and a
/// bound on what a hostile tenant can make us keep.
const REMEMBERED: usize = 64;
/// Life of the operator's own credential inside a tenant, minted in memory and never stored.
const CREDENTIAL_LIFETIME: time::Duration = time::Duration::days(1);

/// A connection to one API server of the tenant.
#[derive(Clone)]
pub struct Connection {
    /// The pod's address.
    pub(super) address: IpAddr,
    /// The client towards it.
    pub(super) client: Client,
    /// PEM of the authorities that the tenant believes.
    pub(super) certificate_authority: String,
    /// When the credential must be minted anew.
    pub(super) expires: OffsetDateTime,
}

pub(super) async fn answers(client: &Client) -> bool {
    matches!(stoker_kube::ready(client).await, Ok(true))
}

/// What proves to the tenant's API servers who we are, of `system:masters`. It exists only in memory.
pub struct Credential {
    certificate_authority: String,
    leaf: KeyedCertificate,
    expires: OffsetDateTime,
}

/// Mints a credential with the tenant's keys.
///
/// # Errors
/// Its authority has expired, or the machine has no randomness.
pub(super) fn mint(keys: &Keys) -> Result<Credential, Error> {
    let now = OffsetDateTime::now_utc();
    let request = LeafRequest {
        common_name: "stoker-operator".to_owned(),
        organizations: vec!["system:masters".to_owned()],
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: CREDENTIAL_LIFETIME,
    };
    Ok(Credential {
        certificate_authority: keys.certificate_authority.trusted(),
        leaf: keys.certificate_authority.signer().issue(&request, now)?,
        expires: now + CREDENTIAL_LIFETIME * 2 / 3,
    })
}

/// A credential: minted with `keys`, else the one `at_hand`, else with keys that are read.
async fn credential(
    tenant: &Tenant,
    keys: Option<&Keys>,
    at_hand: Option<Credential>,
    ctx: &Context,
) -> Result<Credential, Error> {
    let now = OffsetDateTime::now_utc();
    let at_hand = at_hand.filter(|credential| now < credential.expires);
    match (keys, at_hand) {
        (Some(keys), _) => mint(keys),
        (None, Some(credential)) => Ok(credential),
        (None, None) => {
            let existing = TenantSecrets::read(tenant, true, &NamesThere::default(), ctx).await?;
            mint(&control_plane::keys(tenant, &existing.data(), true, now)?)
        }
    }
}

/// A client with a [`Credential`].
///
/// # Errors
/// The tenant's keys cannot be read, or are of no use.
pub(super) async fn connect(
    address: IpAddr,
    tenant: &Tenant,
    keys: Option<&Keys>,
    at_hand: Option<Credential>,
    ctx: &Context,
) -> Result<Connection, Error> {
    let Credential {
        certificate_authority,
        leaf,
        expires,
    } = credential(tenant, keys, at_hand, ctx).await?;
    let endpoint = TenantEndpoint {
        address: SocketAddr::new(address, API_SERVER_PORT),
        server_name: format!("{}.{}.svc", tenant.name, tenant.namespace),
        certificate_authority: certificate_authority.clone(),
        client_key: leaf.key.as_pem().to_owned().into(),
        client_certificate: leaf.certificate,
    };
    let count = ctx.metrics.counter(Side::Tenant);
    let client = (ctx.tenant_client)(&endpoint, count).map_err(Error::Inside)?;
    Ok(Connection {
        address,
        client,
        certificate_authority,
        expires,
    })
}

/// Wakes the tenant once its API server is ready.
pub(super) fn await_ready(
    connection: &Connection,
    ready: &Arc<AtomicBool>,
    tenant: &ObjectRef<TenantControlPlane>,
    ctx: &Arc<Context>,
) -> Task {
    let (connection, ready) = (connection.clone(), Arc::clone(ready));
    let begin = move |tenant, ctx| wait(connection.clone(), Arc::clone(&ready), tenant, ctx);
    Task::spawn("wait for the API server", tenant, ctx, begin)
}

/// The API server is asked as little as possible, for each answer costs both sides: first whether somebody listens, then
/// by a watch that it holds until it has made its roles, then for `/readyz`.
async fn wait(
    connection: Connection,
    ready: Arc<AtomicBool>,
    tenant: ObjectRef<TenantControlPlane>,
    ctx: Arc<Context>,
) {
    let started = Instant::now();
    let socket = SocketAddr::new(connection.address, API_SERVER_PORT);
    let (mut listens, mut has_roles) = (false, false);
    loop {
        if !listens {
            let dial = timeout(POLL_LISTEN * 2, TcpStream::connect(socket));
            listens = matches!(dial.await, Ok(Ok(_)));
        }
        let mut is_late = false;
        if listens && !has_roles {
            let asked = Instant::now();
            let made = timeout(ROLES, stoker_kube::roles_made(&connection.client)).await;
            is_late = made.is_err();
            has_roles = matches!(made, Ok(Ok(true)));
            if has_roles {
                let rest = FIRST_POLL.saturating_sub(asked.elapsed());
                sleep(rest.max(LAST_STEPS)).await;
            }
        }
        if (has_roles || is_late) && answers(&connection.client).await {
            ready.store(true, Ordering::Release);
            ctx.wake(tenant);
            return;
        }
        let pause = match (started.elapsed() < PATIENCE, has_roles) {
            (true, false) => POLL_LISTEN,
            (true, true) => POLL,
            (false, _) => POLL_LATER,
        };
        sleep(pause).await;
    }
}

/// Watches our objects inside the tenant; whatever others change there wakes the tenant. What was `written` just now need
/// not be shown again.
pub(super) fn watch(
    client: &Client,
    ledger: Arc<Ledger>,
    written: Vec<(ObjectKey, Fingerprint)>,
    api_priority: bool,
    tenant: &ObjectRef<TenantControlPlane>,
    ctx: &Arc<Context>,
) -> Task {
    let (client, mut written) = (client.clone(), Some(written));
    let begin = move |tenant, ctx| {
        let owned = OwnedWatch {
            resources: watched(api_priority),
            selector: format!("{MANAGED_BY}={MANAGED_BY_VALUE}"),
            fields: None,
            namespace: None,
            owner_label: None,
            // Of one that is begun again, what vanished meanwhile is missed too.
            written: written.take().unwrap_or_else(|| ledger.written()),
            bookmarks: false,
            remembered: REMEMBERED,
        };
        follow(client.clone(), owned, Arc::clone(&ledger), tenant, ctx)
    };
    Task::spawn("watch inside", tenant, ctx, begin)
}

async fn follow(
    client: Client,
    owned: OwnedWatch,
    ledger: Arc<Ledger>,
    tenant: ObjectRef<TenantControlPlane>,
    ctx: Arc<Context>,
) {
    let mut changes = std::pin::pin!(stoker_kube::watch_owned(client, owned));
    let mut damper = Damper::default();
    while let Some(change) = changes.next().await {
        match change {
            Ok(change) if ledger.observe(&change) == Observation::Changed => {
                sleep(damper.delay(Instant::now())).await;
                ctx.wake(tenant.clone());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(tenant = %tenant, error = %error, "watch broken, resuming");
            }
        }
    }
}

/// The kinds of which there are objects of ours inside a tenant.
fn watched(api_priority: bool) -> Vec<ApiResource> {
    let kinds = stoker_tenant::watched_kinds_of(api_priority);
    kinds.map(api_resource).collect()
}

/// The kinds of which there may be objects of ours inside any tenant.
pub(super) fn owned_kinds() -> Vec<ApiResource> {
    stoker_tenant::watched_kinds()
        .iter()
        .map(api_resource)
        .collect()
}

fn api_resource(kind: &WatchedKind) -> ApiResource {
    let WatchedKind {
        group,
        version,
        kind,
        plural,
        ..
    } = *kind;
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
