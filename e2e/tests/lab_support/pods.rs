//! A tenant's control-plane pods as the management cluster and its containerd see them.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use stoker_lab::host::Host;

use crate::world::World;

impl World {
    /// The tenant's control-plane pods.
    pub(crate) async fn pods(&self, name: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.management.clone(), name);
        Ok(pods
            .list(&ListParams::default().labels(&format!("stoker.dev/name={name}")))
            .await?
            .items)
    }

    /// The first process of a pod's container, as the management host numbers it.
    pub(crate) async fn pid(&self, pod: &Pod, container: &str) -> Result<String> {
        pid_on(&self.host()?, pod, container).await
    }
}

/// The first process of a pod's container, as its host numbers it.
pub(crate) async fn pid_on(host: &Host, pod: &Pod, container: &str) -> Result<String> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let id = statuses
        .into_iter()
        .flatten()
        .find(|status| status.name == container)
        .and_then(|status| {
            status
                .container_id
                .as_deref()?
                .strip_prefix("containerd://")
        })
        .with_context(|| format!("{} has no running container {container}", pod.name_any()))?;
    let tasks = host
        .run(["ctr", "--namespace", "k8s.io", "tasks", "list"])
        .await?;
    let line = tasks.lines().find(|line| line.starts_with(id));
    let pid = line.and_then(|line| line.split_whitespace().nth(1));
    pid.map(str::to_owned)
        .with_context(|| format!("containerd has no task {id}"))
}

/// Restarts of all containers of these pods.
pub(crate) fn restarts(pods: &[Pod]) -> i32 {
    pods.iter()
        .filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref())
        .flatten()
        .map(|status| status.restart_count)
        .sum()
}

/// Unique names of these pods, sorted.
pub(crate) fn uids(pods: &[Pod]) -> Vec<String> {
    let mut uids: Vec<_> = pods.iter().filter_map(kube::ResourceExt::uid).collect();
    uids.sort();
    uids
}
