//! The networks of the management cluster, told to all tenants with care: each change is one write per tenant.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, select_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{First, broken, cached, listed};
use crate::context::Context;
use crate::management_networks::{Networks, Sources};
use crate::tenant::state::lock;

/// Changes that come within this time of the first one are told as one: a Node says what it is in several steps.
const SETTLE: Duration = Duration::from_secs(2);
/// Tenants hear of changes at most this often: a cluster that scales all day must not write all day.
const APART: Duration = Duration::from_secs(30);
/// The Service behind which the management API server is: pods that dial it reach its endpoints.
const API_SERVER: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

/// When to look again.
#[derive(Debug, Default)]
struct Pace {
    told: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    fn changed(&mut self, now: Instant) {
        self.look_at(now + SETTLE);
    }

    /// Looks again at `when`, or before.
    fn look_at(&mut self, when: Instant) {
        let earliest = self.told.map(|told| told + APART);
        let when = earliest.map_or(when, |earliest| when.max(earliest));
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Looked; `news` were told.
    fn looked(&mut self, now: Instant, news: bool) {
        self.due = None;
        if news {
            self.told = Some(now);
        }
    }

    async fn until_due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }
}

/// Tells when something of a kind changed.
type Changes = BoxStream<'static, ()>;

/// What the cluster says of itself. Nodes and `ServiceCIDR`s only where nobody has given their networks.
struct Cluster {
    ctx: Arc<Context>,
    nodes: Store<Node>,
    service_cidrs: Store<ServiceCIDR>,
    api_server: Store<EndpointSlice>,
}

impl Cluster {
    fn watch(ctx: Arc<Context>) -> (Self, Vec<Changes>) {
        let (nodes, node_cache) = store();
        let (service_cidrs, service_cidr_cache) = store();
        let (api_server, api_server_cache) = store();
        let client = || ctx.client.clone();
        let slices = Api::namespaced(client(), API_SERVER.0);
        let labelled = watcher::Config::default().labels(API_SERVER.1);
        let mut changes = vec![follow(slices, labelled, api_server_cache, |_| {})];
        if ctx.args.management_cidrs.is_empty() {
            let all = watcher::Config::default;
            changes.push(follow(Api::all(client()), all(), node_cache, forget));
            let cidrs = follow(Api::all(client()), all(), service_cidr_cache, |_| {});
            changes.push(cidrs);
        }
        let cluster = Self {
            ctx,
            nodes,
            service_cidrs,
            api_server,
        };
        (cluster, changes)
    }

    /// Every first list is complete. A cache is never dropped before its reader.
    async fn listed(&self) {
        let _ = self.api_server.wait_until_ready().await;
        if self.ctx.args.management_cidrs.is_empty() {
            let _ = self.nodes.wait_until_ready().await;
            let _ = self.service_cidrs.wait_until_ready().await;
        }
    }

    /// What follows, and after how long it would be something else by itself.
    fn networks(&self) -> (Networks, Option<Duration>) {
        let sources = Sources {
            given: &self.ctx.args.management_cidrs,
            nodes: self.nodes.state(),
            service_cidrs: self.service_cidrs.state(),
            api_server: self.api_server.state(),
            pools: self.pools(),
            operator: &self.ctx.args.pod_ips,
            pods: self.pods(),
        };
        let now = Timestamp::now();
        (Networks::found(&sources, now), sources.grace_left(now))
    }

    /// The hosts of all pools: where they were found, and what people wrote of those that cannot be looked at.
    fn pools(&self) -> Vec<IpAddr> {
        let mut hosts = self.ctx.pools.hosts();
        for store in self.ctx.stores.data_stores.state() {
            hosts.extend(store.spec.endpoints.iter().filter_map(|text| host(text)));
        }
        hosts
    }

    /// The addresses of all control-plane pods, with a name for people.
    fn pods(&self) -> Vec<(String, IpAddr)> {
        let mut found = Vec::new();
        for (tenant, state) in self.ctx.tenants.all() {
            let namespace = tenant.namespace.unwrap_or_default();
            let pods = lock(&state.pods);
            let addresses = pods.addresses();
            found.extend(addresses.map(|(pod, ip)| (format!("{namespace}/{pod}"), ip)));
        }
        found
    }
}

/// The address in an endpoint that names none.
fn host(endpoint: &str) -> Option<IpAddr> {
    let (host, _) = endpoint.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}

/// Of a Node only what its networks follow from is kept.
fn forget(node: &mut Node) {
    let addresses = node.status.take().and_then(|status| status.addresses);
    node.status = Some(NodeStatus {
        addresses,
        ..NodeStatus::default()
    });
    node.metadata.annotations = None;
}

/// Fills a cache and tells of each change.
fn follow<K>(api: Api<K>, config: watcher::Config, cache: Writer<K>, forget: fn(&mut K)) -> Changes
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let events = watcher(api, config).default_backoff();
    let changes = cached(cache, events.modify(forget));
    let told = changes.filter_map(async |event| {
        let event = broken(&K::kind(&()), event)?;
        let counts = !matches!(event, Event::Init | Event::InitApply(_));
        counts.then_some(())
    });
    told.boxed()
}

pub(super) async fn watch_networks(
    sender: watch::Sender<Networks>,
    ctx: Arc<Context>,
    first: First,
) {
    let (cluster, changes) = Cluster::watch(ctx.clone());
    let mut changes = select_all(changes);
    tokio::select! {
        () = cluster.listed() => {}
        () = changes.by_ref().for_each(async |()| {}) => return,
    }
    listed(&first.pools).await;
    let mut pace = Pace::default();
    loop {
        let (networks, changes_in) = cluster.networks();
        pace.looked(Instant::now(), tell(&sender, &networks, &ctx));
        first.networks.store(true, Ordering::Release);
        if let Some(wait) = changes_in {
            pace.look_at(Instant::now() + wait);
        }
        loop {
            tokio::select! {
                Some(()) = changes.next() => pace.changed(Instant::now()),
                () = ctx.networks_doubted.notified() => pace.changed(Instant::now()),
                () = pace.until_due() => break,
            }
        }
    }
}

/// Tells every tenant, if that is news.
fn tell(sender: &watch::Sender<Networks>, now: &Networks, ctx: &Context) -> bool {
    let news = sender.send_if_modified(|before| std::mem::replace(before, now.clone()) != *now);
    if news {
        tracing::info!(networks = ?now.closed, "networks of the management cluster");
        if let Some(reason) = &now.unnamed {
            tracing::warn!(
                "no new tenants, because {reason}: give --management-cidrs to the operator"
            );
        }
        ctx.wake_all_tenants();
    }
    news
}

#[cfg(test)]
mod tests;
