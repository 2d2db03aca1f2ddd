//! When things were first seen on the management cluster, by watches that run all the time.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use stoker_api::v1alpha1::TenantControlPlane;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What was seen in one namespace, which holds one control plane.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The Deployment.
    pub(super) deployment: Option<Instant>,
    /// Address of the pod.
    pub(super) address: Option<String>,
    /// The pod's condition `Ready`.
    pub(super) pod_ready: Option<Instant>,
    /// The tenant's condition `Ready`.
    pub(super) tenant_ready: Option<Instant>,
    /// Container restarts of the pods, as last seen.
    pub(super) restarts: i32,
    /// Every `ReplicaSet` that there ever was.
    pub(super) replica_sets: BTreeSet<String>,
}

type All = HashMap<String, Seen>;

/// The watches; they end with this.
#[derive(Debug)]
pub(super) struct Sightings {
    seen: watch::Receiver<All>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Sightings {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Sightings {
    /// Starts to watch.
    pub(super) fn start(client: &Client) -> Self {
        let (sender, seen) = watch::channel(All::new());
        let tasks = vec![
            follow(client, &sender, |seen, deployment: &Deployment| {
                let _ = deployment;
                seen.deployment.get_or_insert_with(Instant::now);
            }),
            follow(client, &sender, |seen, set: &ReplicaSet| {
                seen.replica_sets.insert(set.name_any());
            }),
            follow(client, &sender, see_pod),
            follow(client, &sender, see_tenant),
        ];
        Self { seen, tasks }
    }

    /// Waits until something was seen in a namespace.
    ///
    /// # Errors
    /// When it was not within `limit`.
    pub(super) async fn wait<T>(
        &self,
        namespace: &str,
        what: &str,
        limit: Duration,
        find: impl Fn(&Seen) -> Option<T>,
    ) -> Result<T> {
        let find = |all: &All| all.get(namespace).and_then(&find);
        let mut seen = self.seen.clone();
        let found = seen.wait_for(|all| find(all).is_some());
        let all = tokio::time::timeout(limit, found)
            .await
            .with_context(|| format!("{namespace}: no {what} within {limit:?}"))?
            .context("the watches ended")?;
        find(&all).context("it was seen a moment ago")
    }

    /// What was seen in a namespace so far.
    pub(super) fn of(&self, namespace: &str) -> Seen {
        self.seen
            .borrow()
            .get(namespace)
            .cloned()
            .unwrap_or_default()
    }
}

fn follow<K>(client: &Client, sender: &watch::Sender<All>, see: fn(&mut Seen, &K)) -> JoinHandle<()>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let (api, sender) = (Api::<K>::all(client.clone()), sender.clone());
    tokio::spawn(async move {
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event {
                let namespace = object.namespace().unwrap_or_default();
                sender.send_modify(|all| see(all.entry(namespace).or_default(), &object));
            }
        }
    })
}

fn see_pod(seen: &mut Seen, pod: &Pod) {
    let Some(status) = &pod.status else { return };
    if let Some(address) = &status.pod_ip {
        seen.address.get_or_insert_with(|| address.clone());
    }
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        seen.pod_ready.get_or_insert_with(Instant::now);
    }
    let containers = status.container_statuses.iter().flatten();
    let restarts = containers.map(|container| container.restart_count).sum();
    seen.restarts = seen.restarts.max(restarts);
}

fn see_tenant(seen: &mut Seen, tenant: &TenantControlPlane) {
    let mut conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        seen.tenant_ready.get_or_insert_with(Instant::now);
    }
}
