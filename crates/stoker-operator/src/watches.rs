//! Watches of the management cluster: they fill the caches and wake whom an event concerns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch_objects};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use stoker_api::labels::{ABANDON_DATA, MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::v1alpha1::{DataStore, TenantControlPlane};
use stoker_kube::{Change, ObjectKey, Observation, OwnedWatch};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::management_networks::Networks;
use crate::tenant::state::lock;

/// What the watches fill.
pub struct Watches {
    /// Cache of tenants.
    pub tenants: Writer<TenantControlPlane>,
    /// Cache of `DataStore`s.
    pub data_stores: Writer<DataStore>,
    /// Cache of our Services.
    pub services: Writer<Service>,
    /// Cache of our Deployments.
    pub deployments: Writer<Deployment>,
    /// Networks of the management cluster.
    pub networks: watch::Sender<Networks>,
}

/// Set once a first list is complete.
pub type Listed = Arc<AtomicBool>;

/// Waits for it.
pub async fn listed(listed: &Listed) {
    while !listed.load(Ordering::Acquire) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

impl Watches {
    /// Watches for ever; broken watches are resumed with backoff.
    pub async fn run(self, ctx: Arc<Context>, pods_listed: Listed, networks_listed: Listed) {
        // Each a task of its own: what wakes one does not poll the others.
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_tenants(self.tenants, ctx.clone()));
        tasks.spawn(watch_data_stores(self.data_stores, ctx.clone()));
        tasks.spawn(watch_cached(self.services, ctx.clone(), |_| {}));
        // Of a Deployment only the status is read again.
        let status = |deployment: &mut Deployment| deployment.spec = None;
        tasks.spawn(watch_cached(self.deployments, ctx.clone(), status));
        tasks.spawn(watch_metadata(ctx.clone()));
        tasks.spawn(watch_pods(ctx.clone(), pods_listed));
        tasks.spawn(watch_networks(self.networks, ctx, networks_listed));
        tasks.join_all().await;
    }
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_VALUE}"))
}

/// Events of one kind, without the bookkeeping that nobody here reads.
fn events<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch_objects(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
}

/// Logs a broken watch; it resumes by itself.
fn broken<T, E: std::fmt::Display>(kind: &str, event: Result<T, E>) -> Option<T> {
    event
        .inspect_err(|error| tracing::warn!(kind, error = %error, "watch broken, resuming"))
        .ok()
}

/// What of a tenant asks for a pass: everything that people write, nothing that we write.
fn fingerprint(
    tenant: &TenantControlPlane,
) -> (Option<String>, Option<i64>, bool, BTreeMap<String, String>) {
    (
        tenant.uid(),
        tenant.metadata.generation,
        tenant.metadata.deletion_timestamp.is_some(),
        tenant.annotations().clone(),
    )
}

async fn watch_tenants(writer: Writer<TenantControlPlane>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(
        Api::<TenantControlPlane>::all(ctx.client.clone()),
        watcher::Config::default(),
    );
    let mut stream = std::pin::pin!(reflector(writer, stream));
    while let Some(event) = stream.next().await {
        match broken("TenantControlPlane", event) {
            Some(Event::Apply(tenant) | Event::InitApply(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                let now = fingerprint(&tenant);
                if known.insert(reference.clone(), now.clone()) != Some(now) {
                    ctx.wake(reference);
                }
            }
            Some(Event::Delete(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                known.remove(&reference);
                ctx.tenants.remove(&reference);
                ctx.tenant_failures.succeeded(&reference);
            }
            Some(Event::InitDone) => {
                // Deletions while the watch was broken are seen only by absence.
                let exists = |tenant: &ObjectRef<_>| ctx.stores.tenants.get(tenant).is_some();
                known.retain(|tenant, _| exists(tenant));
                ctx.tenants.retain(exists);
                ctx.wake_all_tenants();
            }
            Some(Event::Init) | None => {}
        }
    }
}

async fn watch_data_stores(writer: Writer<DataStore>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(
        Api::<DataStore>::all(ctx.client.clone()),
        watcher::Config::default(),
    );
    let mut stream = std::pin::pin!(reflector(writer, stream));
    while let Some(event) = stream.next().await {
        match broken("DataStore", event) {
            Some(Event::Apply(store) | Event::InitApply(store)) => {
                let name = store.name_any();
                let now = (
                    store.uid(),
                    store.metadata.generation,
                    store.metadata.deletion_timestamp.is_some(),
                    store.annotations().get(ABANDON_DATA).cloned(),
                );
                if known.insert(name.clone(), now.clone()) != Some(now) {
                    ctx.wake_data_store(&name);
                }
            }
            Some(Event::Delete(store)) => {
                let name = store.name_any();
                known.remove(&name);
                ctx.pools.remove(&name);
                ctx.data_store_failures.succeeded(&ObjectRef::new(&name));
                ctx.wake_tenants_of(&name);
            }
            Some(Event::InitDone) => {
                for store in ctx.stores.data_stores.state() {
                    ctx.wake_data_store(&store.name_any());
                }
            }
            Some(Event::Init) | None => {}
        }
    }
}

/// Services and Deployments: cached for what their status says, after `forget` took away the rest.
async fn watch_cached<K>(writer: Writer<K>, ctx: Arc<Context>, forget: fn(&mut K))
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let kind = K::kind(&());
    let stream = events(Api::<K>::all(ctx.client.clone()), ours()).modify(forget);
    let mut stream = std::pin::pin!(reflector(writer, stream));
    while let Some(event) = stream.next().await {
        let (object, deleted) = match broken(&kind, event) {
            Some(Event::Apply(object) | Event::InitApply(object)) => (object, false),
            Some(Event::Delete(object)) => (object, true),
            _ => continue,
        };
        let key = ObjectKey::of::<K>(object.meta().namespace.as_deref(), &object.name_any());
        saw(
            &ctx,
            &Change {
                key,
                metadata: object.meta().clone(),
                deleted,
            },
        );
        if let Some(tenant) = tenant_of(object.meta()) {
            ctx.wake(tenant);
        }
    }
}

/// The other kinds: only their metadata, and only to notice changes by others.
async fn watch_metadata(ctx: Arc<Context>) {
    let kinds = vec![
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
    ];
    let watch = OwnedWatch {
        resources: kinds,
        selector: format!("{MANAGED_BY}={MANAGED_BY_VALUE}"),
        namespace: None,
        owner_label: Some(TENANT),
        remembered: usize::MAX,
    };
    let mut changes = std::pin::pin!(stoker_kube::watch_owned(ctx.client.clone(), watch));
    while let Some(change) = changes.next().await {
        if let Some(change) = broken("metadata", change)
            && saw(&ctx, &change)
            && let Some(tenant) = tenant_of(&change.metadata)
        {
            ctx.wake(tenant);
        }
    }
}

/// The tenant that an object belongs to: by its label, or, when somebody took the label away, by its owner.
fn tenant_of(object: &ObjectMeta) -> Option<ObjectRef<TenantControlPlane>> {
    let label = object.labels.as_ref().and_then(|labels| labels.get(TENANT));
    let owner = || {
        let owners = object.owner_references.iter().flatten();
        let mut tenants = owners.filter(|owner| owner.kind == TenantControlPlane::kind(&()));
        Some(&tenants.next()?.name)
    };
    let name = label.or_else(owner)?;
    Some(ObjectRef::new(name).within(object.namespace.as_deref()?))
}

/// Tells the tenant's ledger; true when others changed something of ours.
fn saw(ctx: &Context, change: &Change) -> bool {
    let Some(tenant) = tenant_of(&change.metadata) else {
        return false;
    };
    let Some(state) = ctx.tenants.get(&tenant) else {
        return false;
    };
    let changed = state.ledger.observe(change) == Observation::Changed;
    if changed {
        state.unsettle();
    }
    changed
}

async fn watch_pods(ctx: Arc<Context>, listed: Listed) {
    let mut stream = std::pin::pin!(events(Api::<Pod>::all(ctx.client.clone()), ours()));
    while let Some(event) = stream.next().await {
        let (pod, deleted) = match broken("Pod", event) {
            Some(Event::Apply(pod) | Event::InitApply(pod)) => (pod, false),
            Some(Event::Delete(pod)) => (pod, true),
            Some(Event::InitDone) => {
                listed.store(true, Ordering::Release);
                continue;
            }
            Some(Event::Init) | None => continue,
        };
        let Some(tenant) = tenant_of(pod.meta()) else {
            continue;
        };
        let state = ctx.tenants.state(&tenant);
        let news = {
            let mut pods = lock(&state.pods);
            if deleted {
                pods.gone(&pod.name_any())
            } else {
                pods.saw(&pod)
            }
        };
        let exists = ctx.stores.tenants.get(&tenant).is_some();
        if deleted && !exists {
            // The last pods of a tenant may end after it.
            ctx.tenants.remove(&tenant);
        } else if news {
            ctx.wake(tenant);
        }
    }
}

async fn watch_networks(sender: watch::Sender<Networks>, ctx: Arc<Context>, listed: Listed) {
    if !ctx.args.management_cidrs.is_empty() {
        listed.store(true, Ordering::Release);
        return std::future::pending().await;
    }
    let (mut nodes, mut cidrs) = (BTreeMap::new(), BTreeMap::new());
    let mut node_events = std::pin::pin!(events(
        Api::<Node>::all(ctx.client.clone()),
        watcher::Config::default()
    ));
    let mut cidr_events = std::pin::pin!(events(
        Api::<ServiceCIDR>::all(ctx.client.clone()),
        watcher::Config::default()
    ));
    let (mut nodes_listed, mut cidrs_listed) = (false, false);
    loop {
        tokio::select! {
            Some(event) = node_events.next() => nodes_listed |= note(&mut nodes, broken("Node", event)),
            Some(event) = cidr_events.next() => cidrs_listed |= note(&mut cidrs, broken("ServiceCIDR", event)),
            else => return,
        }
        if !(nodes_listed && cidrs_listed) {
            continue;
        }
        let now = Networks::found(nodes.values(), cidrs.values(), ctx.args.pod_ip);
        if sender.send_if_modified(|before| std::mem::replace(before, now.clone()) != now) {
            tracing::info!(networks = ?now.closed, "networks of the management cluster");
            if let Some(reason) = &now.unnamed {
                tracing::warn!(
                    "no new tenants, because {reason}: give --management-cidrs to the operator"
                );
            }
            ctx.wake_all_tenants();
        }
        listed.store(true, Ordering::Release);
    }
}

/// Records an event; true once a first list is complete. What vanished while a watch was broken is
/// kept until the process starts anew: a network too many is refused, never one too few.
fn note<K: Resource>(objects: &mut BTreeMap<String, K>, event: Option<Event<K>>) -> bool
where
    K::DynamicType: Default,
{
    match event {
        Some(Event::Apply(object) | Event::InitApply(object)) => {
            objects.insert(object.name_any(), object);
            false
        }
        Some(Event::Delete(object)) => {
            objects.remove(&object.name_any());
            false
        }
        Some(Event::InitDone) => true,
        Some(Event::Init) | None => false,
    }
}
