//! The whole main job, and what a person sees of it.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::Api;
use kube::api::ListParams;
use stoker_lab::demo::TENANT;

use crate::conditions::find;
use crate::pods::restarts;
use crate::world::World;

/// `examples/tenant.yaml` to Ready, a worker joined by an unmodified `kubeadm join`, two pods there, their
/// logs, exec, Service and DNS: all in [`stoker_lab::lab::Lab::main_job`]. Then what kubectl shows.
pub(crate) async fn a_tenant_a_joined_worker_and_running_pods(world: &World) -> Result<()> {
    world.lab.main_job().await?;
    let tenant = world.tenants(TENANT).get(TENANT).await?;
    let status = tenant.status.clone().context("no status")?;
    ensure!(
        Some(status.observed_generation) == tenant.metadata.generation,
        "the status speaks of generation {}",
        status.observed_generation
    );
    for wanted in [
        "Valid",
        "DataStoreReady",
        "ControlPlaneApplied",
        "APIServerAvailable",
        "TenantConfigured",
        "Ready",
    ] {
        let found = find(&status.conditions, wanted);
        let found = found.with_context(|| format!("no condition {wanted}"))?;
        ensure!(
            found.status == "True" && found.observed_generation == Some(status.observed_generation),
            "{found:?}"
        );
    }
    let endpoint = status.control_plane_endpoint.context("no endpoint")?;
    let (address, port) = endpoint
        .rsplit_once(':')
        .context("an endpoint is host:port")?;
    let (first, last) = world.lab.addresses().load_balancers();
    ensure!(
        address
            .parse()
            .is_ok_and(|address: std::net::Ipv4Addr| first <= address && address <= last)
            && port == "6443",
        "{endpoint} is not from the load balancer's range"
    );
    let table = world
        .lab
        .kubectl(&["-n", TENANT, "get", "tcp", TENANT])
        .await?;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let version = world.lab.kubernetes().version;
    let kubeconfig = format!("{TENANT}-admin-kubeconfig");
    ensure!(
        rows.len() == 2
            && rows[1].starts_with(&[
                TENANT,
                version,
                version,
                "Ready",
                &endpoint,
                &kubeconfig,
                "default"
            ]),
        "kubectl get tcp printed\n{table}"
    );
    let sets: Api<ReplicaSet> = Api::namespaced(world.management.clone(), TENANT);
    let sets = sets.list(&ListParams::default()).await?.items;
    ensure!(
        sets.len() == 1,
        "{} ReplicaSets were made, not one",
        sets.len()
    );
    let pods = world.pods(TENANT).await?;
    ensure!(pods.len() == 2, "{} control-plane pods, not 2", pods.len());
    ensure!(
        restarts(&pods) == 0,
        "{} containers were restarted",
        restarts(&pods)
    );
    let nodes = world
        .lab
        .kubectl_with(TENANT, &["get", "nodes", "--no-headers"])
        .await?;
    ensure!(
        nodes.lines().count() == 1 && nodes.contains(" Ready "),
        "the tenant's nodes:\n{nodes}"
    );
    Ok(())
}
