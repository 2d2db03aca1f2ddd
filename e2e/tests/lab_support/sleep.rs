//! 2 → 0 → 1 replicas through the scale subresource, with a worker that has pods.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use stoker_lab::demo::TENANT;

use crate::conditions::find;
use crate::pods::{restarts, uids};
use crate::world::{BIRTH, Tenant, World, eventually};

/// After so long without a sign of life a node is not Ready (`--node-monitor-grace-period`, since 1.32).
pub(crate) const GRACE: Duration = Duration::from_secs(50);

pub(crate) async fn a_tenant_sleeps_and_wakes_with_its_data_and_its_pods(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    scale(world, 2).await?;
    let tenant_pods = workload(&tenant).await?;
    ensure!(!tenant_pods.is_empty(), "nothing runs in the tenant");
    let (before, restarted) = (uids(&tenant_pods), restarts(&tenant_pods));
    let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client.clone());
    let metadata = ObjectMeta {
        generate_name: Some("asleep-".into()),
        ..ObjectMeta::default()
    };
    let map = ConfigMap {
        metadata,
        ..ConfigMap::default()
    };
    let marker = maps.create(&PostParams::default(), &map).await?;

    scale(world, 0).await?;
    eventually(BIRTH, "the tenant sleeps", async || {
        let status = world.status(TENANT).await?;
        let ready = find(&status.conditions, "Ready").context("no condition")?;
        let pods = world.pods(TENANT).await?.len();
        ensure!(
            pods == 0 && ready.status == "False",
            "{pods} pods, {ready:?}"
        );
        let shown = world
            .lab
            .kubectl(&["-n", TENANT, "get", "tcp", TENANT, "--no-headers"])
            .await?;
        ensure!(shown.contains(" Sleeping "), "kubectl shows {shown}");
        Ok(())
    })
    .await?;
    // What runs on the worker does not need its control plane.
    let asleep = running(world).await?;
    ensure!(
        asleep >= tenant_pods.len(),
        "only {asleep} containers run on the worker"
    );

    // Until every lease is older than a controller that judged by it would bear.
    let asleep = Instant::now();
    tokio::time::sleep(GRACE + Duration::from_secs(15)).await;
    println!("slept for {:.1} s", asleep.elapsed().as_secs_f64());
    let woken = Instant::now();
    scale(world, 1).await?;
    let tenant = world.ready(TENANT).await?;
    println!("awake after {:.1} s", woken.elapsed().as_secs_f64());
    let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client.clone());
    let kept = maps
        .get(&marker.name_any())
        .await
        .context("written before the sleep")?;
    ensure!(kept.uid() == marker.uid(), "the data is another's");
    // Seen by the new control plane itself: a lease that was renewed since, not a condition of before.
    eventually(
        Duration::from_mins(2),
        "the joined node is Ready",
        async || {
            let nodes: Api<Node> = Api::all(tenant.client.clone());
            let nodes = nodes.list(&ListParams::default()).await?.items;
            ensure!(
                !nodes.is_empty() && nodes.iter().all(is_ready),
                "a node is not Ready"
            );
            ensure!(!nodes.iter().any(is_tainted), "a node is tainted");
            Ok(())
        },
    )
    .await?;
    is_never_judged(&tenant).await?;
    let after = workload(&tenant).await?;
    ensure!(
        uids(&after) == before && restarts(&after) == restarted,
        "pods of the tenant were evicted or restarted"
    );
    scale(world, 2).await?;
    eventually(BIRTH, "both replicas are back", async || {
        let status = world.status(TENANT).await?;
        let ready = status.kubernetes_resources.deployment.ready_replicas;
        ensure!(ready == 2, "{ready} are ready");
        Ok(())
    })
    .await
}

/// Whether the node says, or is said, to be Ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|found| found.type_ == "Ready" && found.status == "True")
}

/// Whether anything keeps pods off the node.
pub(crate) fn is_tainted(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| !taints.is_empty())
}

/// The node stays as it is for as long as kube-controller-manager, which has just started, waits before it judges: it
/// has no sign of the node's life but what it sees itself.
pub(crate) async fn is_never_judged(tenant: &Tenant) -> Result<()> {
    let nodes: Api<Node> = Api::all(tenant.client.clone());
    let begun = Instant::now();
    while begun.elapsed() < GRACE + Duration::from_secs(15) {
        for node in nodes.list(&ListParams::default()).await?.items {
            ensure!(
                is_ready(&node) && !is_tainted(&node),
                "{} after {:?}: {:?}, {:?}",
                node.name_any(),
                begun.elapsed(),
                node.spec.and_then(|spec| spec.taints),
                node.status.and_then(|status| status.conditions),
            );
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn scale(world: &World, replicas: u8) -> Result<()> {
    let (tenant, replicas) = (format!("tcp/{TENANT}"), format!("--replicas={replicas}"));
    world
        .lab
        .kubectl(&["-n", TENANT, "scale", &tenant, &replicas])
        .await
        .map(drop)
}

/// All pods of the tenant, once all of them run.
pub(crate) async fn workload(tenant: &Tenant) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::all(tenant.client.clone());
    eventually(BIRTH, "all pods of the tenant run", async || {
        let all = pods.list(&ListParams::default()).await?.items;
        let runs = |pod: &Pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        ensure!(all.iter().all(runs), "one does not run");
        Ok(all)
    })
    .await
}

/// Containers that run on the worker, sandboxes included.
pub(crate) async fn running(world: &World) -> Result<usize> {
    let tasks = ["ctr", "--namespace", "k8s.io", "tasks", "list"];
    let tasks = world.lab.host("worker-1")?.run(tasks).await?;
    Ok(tasks
        .lines()
        .filter(|line| line.contains("RUNNING"))
        .count())
}
