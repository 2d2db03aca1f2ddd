//! Serving certificates of the tenant's kubelets: each request is approved or denied as soon as anybody can tell
//! ([`decision`]). The tenant's controller manager signs what is approved.
//!
//! A watch tells the names of requests; what is looked at then is read anew, so that nothing is kept of a tenant whose
//! nodes ask for nothing.

mod decision;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{JoinToken, TenantControlPlane};
use stoker_kube::{Answer, Change, KUBELET_SERVING, KubeletRequest, NodeAddresses, OwnedWatch};
use tokio::time::{Instant, timeout, timeout_at};

use self::decision::{Decision, Reserved, decide};
use super::damper::Damper;
use super::state::lock;
use crate::context::Context;
use crate::join_token::decision::networks;
use crate::join_token::status;

/// [`KUBELET_SERVING`].
const SELECTED: &str = "spec.signerName=kubernetes.io/kubelet-serving";
/// Requests that are looked at together; more wait in the watch.
const ROOM: usize = 256;
/// Requests read at the same time.
const CONCURRENCY: usize = 8;
/// Nodes come in crowds.
const BATCH: Duration = Duration::from_millis(50);
/// Until what cannot be decided yet is looked at again; it doubles.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// For so long a kubelet waits for its answer (`k8s.io/client-go/util/certificate`); then it asks anew.
const ABANDONED: SignedDuration = SignedDuration::from_mins(15);
/// One look. A tenant whose API hangs is looked at again.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two events of one tenant: whoever is refused may ask every second.
const TELL: Duration = Duration::from_mins(1);
/// The reason in a request that was answered, and of the event.
const APPROVED: &str = "AddressesOfNode";
const DENIED: &str = "ServingCertificateRefused";

/// Answers requests until dropped.
pub(super) async fn approve(
    client: Client,
    tenant: ObjectRef<TenantControlPlane>,
    ctx: Arc<Context>,
) {
    let watch = OwnedWatch::signing_requests(SELECTED);
    let mut changes = pin!(stoker_kube::watch_owned(client.clone(), watch));
    let mut pending = Pending::default();
    loop {
        let change = match pending.due {
            None => Some(changes.next().await),
            Some(due) if pending.is_full() => {
                tokio::time::sleep_until(due).await;
                None
            }
            Some(due) => timeout_at(due, changes.next()).await.ok(),
        };
        match change {
            Some(None) => return,
            Some(Some(Ok(change))) => pending.note(&change, Instant::now()),
            Some(Some(Err(error))) => {
                tracing::debug!(tenant = %tenant, error = %error, "watch broken, resuming");
            }
            None => Box::pin(pending.look(&client, &tenant, &ctx)).await,
        }
    }
}

/// Requests that may be unanswered.
#[derive(Default)]
struct Pending {
    names: BTreeSet<String>,
    due: Option<Instant>,
    pause: Duration,
    damper: Damper,
    told: Option<Instant>,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.names.len() >= ROOM
    }

    fn note(&mut self, change: &Change, now: Instant) {
        let name = change.key.name();
        if change.deleted {
            self.names.remove(name);
            return;
        }
        self.names.insert(name.to_owned());
        self.pause = AGAIN;
        let soon = now + BATCH.max(self.damper.delay(now.into_std()));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Looks at all of them; those that cannot be decided yet stay.
    async fn look(
        &mut self,
        client: &Client,
        tenant: &ObjectRef<TenantControlPlane>,
        ctx: &Context,
    ) {
        let names = self.names.iter().cloned().collect();
        match timeout(LIMIT, answer_all(names, client, tenant, ctx)).await {
            Ok(Ok(Answered { waiting, denied })) => {
                self.names = waiting;
                if let Some(why) = denied {
                    self.tell(&why, tenant, ctx).await;
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(tenant = %tenant, error = %error, "serving certificates not looked at");
            }
            Err(_) => {
                tracing::debug!(tenant = %tenant, "looking at serving certificates took too long");
            }
        }
        self.due = (!self.names.is_empty()).then(|| Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(AGAIN_AT_MOST);
    }

    async fn tell(&mut self, why: &str, tenant: &ObjectRef<TenantControlPlane>, ctx: &Context) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now < told + TELL) {
            return;
        }
        let Some(object) = ctx.stores.tenants.get(tenant) else {
            return;
        };
        self.told = Some(now);
        let reference = object.object_ref(&());
        ctx.events
            .publish(&reference, true, DENIED, "Approve", why)
            .await;
    }
}

/// What came of a look.
#[derive(Default)]
struct Answered {
    waiting: BTreeSet<String>,
    /// What is wrong with one that was denied.
    denied: Option<String>,
}

async fn answer_all(
    names: Vec<String>,
    client: &Client,
    tenant: &ObjectRef<TenantControlPlane>,
    ctx: &Context,
) -> Result<Answered, stoker_kube::Error> {
    let mut answered = Answered::default();
    let requests = read_all(names, client, &mut answered.waiting).await?;
    if requests.is_empty() {
        return Ok(answered);
    }
    let mut reserved = match reserved(tenant, ctx) {
        Known::Reserved(reserved) => *reserved,
        Known::NotOurs => return Ok(Answered::default()),
        Known::NotYet => {
            answered.waiting.extend(newest(requests));
            return Ok(answered);
        }
    };
    let nodes = stoker_kube::node_addresses(client).await?;
    if let Err(error) = bind_anew(&mut reserved, &requests, &nodes, tenant, ctx).await {
        tracing::debug!(tenant = %tenant, error = %error, "tokens not read");
        answered.waiting.extend(newest(requests));
        return Ok(answered);
    }
    let mut undecided = Vec::new();
    for request in requests {
        let now = Timestamp::now();
        let user = &request.username;
        let (approved, reason, message) = match decide(&request, &nodes, &reserved, now) {
            Decision::Approve => {
                let message = "by Stoker: the node asks for addresses of its own";
                (true, APPROVED, message.to_owned())
            }
            Decision::Deny(why) => (false, DENIED, why),
            Decision::Wait(why) => {
                tracing::debug!(tenant = %tenant, node = user, why, "serving certificate waits");
                let abandoned = request
                    .created
                    .is_some_and(|created| now.duration_since(created) > ABANDONED);
                if !abandoned {
                    undecided.push(request);
                }
                continue;
            }
        };
        if let Err(error) = write(client, &request, approved, reason, &message).await {
            // Something inside the tenant refuses the answer, or it came too late: it waits, and holds up no other.
            tracing::warn!(tenant = %tenant, asked_by = user, error = %error, "serving certificate not answered");
            answered.waiting.insert(request.name);
        } else if approved {
            tracing::info!(tenant = %tenant, node = user, "serving certificate approved");
        } else {
            tracing::info!(tenant = %tenant, asked_by = user, why = message, "serving certificate refused");
            answered.denied = Some(format!(
                "the serving certificate that {user:?} asks for is refused: {message}"
            ));
        }
    }
    answered.waiting.extend(newest(undecided));
    Ok(answered)
}

/// The requests; those that cannot be read wait and hold up no other.
///
/// # Errors
/// None can be read.
async fn read_all(
    names: Vec<String>,
    client: &Client,
    waiting: &mut BTreeSet<String>,
) -> Result<Vec<KubeletRequest>, stoker_kube::Error> {
    let read = names.into_iter().map(|name| async move {
        let request = stoker_kube::kubelet_request(client, &name, KUBELET_SERVING).await;
        (name, request)
    });
    let mut read = stream::iter(read).buffer_unordered(CONCURRENCY);
    let mut requests = Vec::new();
    let mut failed = None;
    while let Some((name, request)) = read.next().await {
        match request {
            Ok(request) => requests.extend(request),
            Err(error) => {
                waiting.insert(name);
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if requests.is_empty() => Err(error),
        _ => Ok(requests),
    }
}

/// Names of requests, of each user the newest: a kubelet that asks anew has given up on what it asked before, and no node can
/// fill the room of all.
fn newest(requests: Vec<KubeletRequest>) -> BTreeSet<String> {
    let mut newest: BTreeMap<String, KubeletRequest> = BTreeMap::new();
    for request in requests {
        let known = newest.get(&request.username);
        if known.is_none_or(|known| known.created <= request.created) {
            newest.insert(request.username.clone(), request);
        }
    }
    newest.into_values().map(|request| request.name).collect()
}

async fn write(
    client: &Client,
    request: &KubeletRequest,
    approved: bool,
    reason: &str,
    message: &str,
) -> Result<(), stoker_kube::Error> {
    let answer = Answer {
        approved,
        reason,
        message,
    };
    match stoker_kube::answer(client, request, answer).await {
        // Gone, or answered by somebody else. Of another one with its name the watch tells.
        Err(error) if ["NotFound", "Conflict"].contains(&error.category()) => Ok(()),
        written => written,
    }
}

enum Known {
    Reserved(Box<Reserved>),
    /// The spec says that kubelets ask for no certificates: whoever has them ask anyway answers.
    NotOurs,
    /// Where the API server is reached is not known, or to which networks nodes are bound.
    NotYet,
}

/// What no node of the tenant serves.
fn reserved(reference: &ObjectRef<TenantControlPlane>, ctx: &Context) -> Known {
    let state = ctx.tenants.get(reference);
    let exposure = state.and_then(|state| lock(&state.exposure).clone());
    let exposure = exposure.filter(|exposure| exposure.endpoint.is_some());
    let object = ctx.stores.tenants.get(reference);
    let checked = object.and_then(|object| Tenant::validate(&object).ok());
    let networks = ctx.join_tokens.networks(reference);
    let (Some(exposure), Some(tenant), Some(networks)) = (exposure, checked, networks) else {
        return Known::NotYet;
    };
    if tenant.kubelet.serving_certificates() == Some(false) {
        return Known::NotOurs;
    }
    let (names, addresses) = stoker_control_plane::serving_names(&tenant, &exposure);
    let names = names.iter().map(|name| name.to_ascii_lowercase());
    Known::Reserved(Box::new(Reserved {
        names: names.collect(),
        addresses: addresses
            .iter()
            .map(std::net::IpAddr::to_canonical)
            .collect(),
        service_networks: tenant.network.service_cidrs,
        cluster_domain: tenant.network.cluster_domain,
        networks,
    }))
}

/// Of a node that has just been let in the cache may not know to which networks it is bound: before something is answered the
/// tokens are read. A tenant of which the cache knows no token has let nobody in by one.
async fn bind_anew(
    reserved: &mut Reserved,
    requests: &[KubeletRequest],
    nodes: &[NodeAddresses],
    tenant: &ObjectRef<TenantControlPlane>,
    ctx: &Context,
) -> Result<(), crate::join_token::reconcile::Error> {
    let now = Timestamp::now();
    let answers = |request| !matches!(decide(request, nodes, reserved, now), Decision::Wait(_));
    if !requests.iter().any(answers) || ctx.join_tokens.of(tenant).is_empty() {
        return Ok(());
    }
    let tokens = status::of_tenant(tenant, ctx).await?;
    let all: Vec<&JoinToken> = tokens.iter().collect();
    reserved.networks = networks(&all);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::watches::tests::operator;

    #[test]
    fn no_user_waits_with_more_than_one_request() {
        let request = |name: &str, user: &str, seconds: i64| KubeletRequest {
            name: name.to_owned(),
            username: user.to_owned(),
            created: Timestamp::from_second(seconds).ok(),
            ..KubeletRequest::default()
        };
        let made = [
            request("a", "system:node:one", 2),
            request("b", "system:node:one", 3),
            request("c", "system:node:one", 1),
            request("d", "system:node:two", 1),
        ];
        let kept: Vec<String> = newest(made.into()).into_iter().collect();
        assert_eq!(kept, ["b", "d"]);
    }

    fn token(status: &Value) -> Value {
        json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
            "metadata": { "name": "workers", "namespace": "a" },
            "spec": { "tenantControlPlane": "one", "nodeNetworks": ["10.1.0.0/16"] },
            "status": status,
        })
    }

    #[tokio::test]
    async fn a_node_that_the_cache_does_not_know_yet_is_bound_all_the_same() {
        let (mut parts, mut server) = operator(&[]);
        let tenant = ObjectRef::new("one").within("a");
        let cached: JoinToken = serde_json::from_value(token(&json!({}))).unwrap();
        let event = Event::Apply(cached.clone());
        parts.watches.join_tokens.apply_watcher_event(&event);
        let mut reserved = Reserved::default();
        // One that would be denied.
        let requests = [KubeletRequest::default()];
        let tokens = &parts.ctx.join_tokens;
        bind_anew(&mut reserved, &requests, &[], &tenant, &parts.ctx)
            .await
            .unwrap();
        assert!(
            reserved.networks.is_empty(),
            "nobody is asked: there are no tokens"
        );

        tokens.index(&cached, true);
        let node = json!({ "name": "w1", "key": "k", "admissionTime": "2026-01-01T00:00:00Z" });
        let latest = [token(&json!({ "nodes": [node] }))];
        let listed = server.list(
            "/apis/stoker.dev/v1alpha1/namespaces/a/jointokens",
            "JoinToken",
            &latest,
        );
        let bound = bind_anew(&mut reserved, &requests, &[], &tenant, &parts.ctx);
        let (bound, ()) = tokio::join!(bound, listed);
        bound.unwrap();
        let names: Vec<_> = reserved.networks.keys().collect();
        assert_eq!(names, ["w1"]);
    }
}
