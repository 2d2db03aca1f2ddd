//! Watches of the management cluster: they fill the caches and wake whom an event concerns.

mod data_stores;
mod join_tokens;
mod kubeconfig_generators;
pub(crate) mod lean;
mod namespaces;
mod networks;
mod owned;
mod pods;
mod routes;
mod standing;
mod tenants;
pub(crate) mod wake_requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource};
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};
use stoker_api::v1alpha1::{DataStore, JoinToken, KubeconfigGenerator, TenantControlPlane};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::lean::{Kind, Lean};
pub use self::namespaces::watch_leaving_namespaces;
pub(crate) use self::owned::tenant_of;
pub use self::wake_requests::watch_wake_requests;
use crate::context::Context;
use crate::management_networks::Networks;

/// What the watches fill.
pub struct Watches {
    /// Cache of tenants.
    pub tenants: Writer<TenantControlPlane>,
    /// Cache of `DataStore`s.
    pub data_stores: Writer<DataStore>,
    /// Cache of `KubeconfigGenerator`s.
    pub generators: Writer<KubeconfigGenerator>,
    /// Cache of `JoinToken`s.
    pub join_tokens: Writer<JoinToken>,
    /// Cache of our Services.
    pub services: Writer<Service>,
    /// Cache of our Deployments.
    pub deployments: Writer<Deployment>,
    /// Networks of the management cluster.
    pub networks: watch::Sender<Networks>,
}

/// Set once a first list is complete.
pub type Listed = Arc<AtomicBool>;

/// What is known for the first time.
#[derive(Clone, Default)]
pub struct First {
    /// The control-plane pods are listed.
    pub pods: Listed,
    /// The pools were looked at, or do not answer; the networks are found out after that.
    pub pools: Listed,
    /// The networks of the management cluster are found out.
    pub networks: Listed,
}

/// Waits for it.
pub async fn listed(listed: &Listed) {
    while !listed.load(Ordering::Acquire) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

impl Watches {
    /// Watches for ever; broken watches are resumed with backoff.
    pub async fn run(self, ctx: Arc<Context>, first: First) {
        // Each a task of its own: what wakes one does not poll the others.
        let mut tasks = JoinSet::new();
        tasks.spawn(tenants::watch_tenants(self.tenants, ctx.clone()));
        tasks.spawn(data_stores::watch_data_stores(
            self.data_stores,
            ctx.clone(),
        ));
        tasks.spawn(kubeconfig_generators::watch_generators(
            self.generators,
            ctx.clone(),
        ));
        tasks.spawn(kubeconfig_generators::watch_namespaces(ctx.clone()));
        tasks.spawn(join_tokens::watch_tokens(self.join_tokens, ctx.clone()));
        tasks.spawn(owned::watch_cached(self.services, ctx.clone()));
        tasks.spawn(owned::watch_cached(self.deployments, ctx.clone()));
        tasks.spawn(owned::watch_metadata(ctx.clone()));
        tasks.spawn(routes::watch_ingresses(ctx.clone()));
        tasks.spawn(routes::watch_tls_routes(ctx.clone()));
        tasks.spawn(pods::watch_pods(ctx.clone(), first.pods.clone()));
        tasks.spawn(networks::watch_networks(self.networks, ctx, first));
        tasks.join_all().await;
    }
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_VALUE}"))
}

/// Events of one kind, of whose objects only a part is read.
fn events<K>(
    client: Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Kind + Send + 'static,
{
    let events = watch_objects(Api::<Lean<K>>::all(client), config).default_backoff();
    events.map_ok(Lean::event)
}

/// Fills a cache. What vanished while the watch was broken, of which the API server tells by absence alone, is told
/// as [`Event::Delete`] before the [`Event::InitDone`] of the list that no longer names it.
fn cached<K>(
    mut cache: Writer<K>,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let store = cache.as_reader();
    events.flat_map(move |event| {
        let mut vanished = Vec::new();
        if matches!(event, Ok(Event::InitDone)) {
            vanished = store.state();
        }
        if let Ok(event) = &event {
            cache.apply_watcher_event(event);
        }
        vanished.retain(|object| store.get(&ObjectRef::from_obj(object.as_ref())).is_none());
        let deleted = vanished
            .into_iter()
            .map(|object| Ok(Event::Delete(K::clone(&object))));
        stream::iter(deleted.chain([event]).collect::<Vec<_>>())
    })
}

/// Logs a broken watch; it resumes by itself.
fn broken<T, E: std::fmt::Display>(kind: &str, event: Result<T, E>) -> Option<T> {
    event
        .inspect_err(|error| tracing::warn!(kind, error = %error, "watch broken, resuming"))
        .ok()
}

#[cfg(test)]
pub(crate) mod tests;
