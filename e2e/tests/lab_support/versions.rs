//! Tenants that run another Kubernetes than the management cluster.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stoker_lab::command::{program, run};
use stoker_lab::versions::{KubernetesVersion, oldest_kubernetes};

use crate::world::World;

const TENANT: &str = "oldest";
/// Worker 1 is the main job's.
const WORKER: u8 = 2;

/// The whole main job with the oldest supported release on the tenant's side: API server, add-ons, kubeadm, kubelet
/// and kubectl.
pub(crate) async fn a_tenant_of_the_oldest_minor_runs_pods_on_a_node_of_its_own_minor(
    world: &World,
) -> Result<()> {
    let release = oldest_kubernetes();
    world.lab.offer_kubernetes(release).await?;
    let conntrack =
        json!([{ "op": "add", "path": "/conntrack", "value": { "maxPerCore": 0, "min": 0 } }]);
    let change = json!({
        "kubernetes": { "version": release.version },
        "addons": { "kubeProxy": { "configurationJSONPatches": conntrack } },
    });
    world.apply_tenant(TENANT, change).await?;
    world.ready(TENANT).await?;
    world.lab.write_tenant_kubeconfig(TENANT, TENANT).await?;
    kubectl_says(world, release).await?;

    let worker = world.lab.add_worker(WORKER, release).await?;
    let kubeconfig = world.lab.paths().kubeconfig(TENANT);
    world.lab.join(&worker, &kubeconfig).await?;
    world.lab.start_workload(TENANT).await?;
    world.lab.check_workload(TENANT).await?;
    let info = "jsonpath={.status.nodeInfo.kubeletVersion}";
    let kubelet = ["get", "node", worker.name(), "-o", info];
    let kubelet = world.lab.kubectl_with(TENANT, &kubelet).await?;
    ensure!(kubelet == release.version, "the kubelet is {kubelet}");

    world.lab.remove_worker(WORKER).await?;
    std::fs::remove_file(&kubeconfig).context("removing the tenant's kubeconfig")?;
    world.delete(TENANT).await
}

/// What `kubectl version` of the same release prints, and the add-ons that kubeadm of that release would install.
async fn kubectl_says(world: &World, release: KubernetesVersion) -> Result<()> {
    let binaries = world.lab.upstream().kubernetes(release).await?;
    let kubectl = async |arguments: &[&str]| {
        let mut command = program(binaries.join("kubectl"), ["--kubeconfig"]);
        command.arg(world.lab.paths().kubeconfig(TENANT));
        run(command.args(arguments)).await
    };
    let said = kubectl(&["version", "--output=json"]).await?;
    let said: Value = serde_json::from_str(&said).context("reading kubectl's answer")?;
    for side in ["clientVersion", "serverVersion"] {
        ensure!(
            said[side]["gitVersion"] == release.version,
            "{side}: {said}"
        );
    }
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    for (object, expected) in [
        (
            "deployment/coredns",
            stoker_lab::images::coredns_reference(release),
        ),
        (
            "daemonset/kube-proxy",
            format!("registry.k8s.io/kube-proxy:{}", release.version),
        ),
    ] {
        let found = kubectl(&["-n", "kube-system", "get", object, "-o", image]).await?;
        ensure!(found == expected, "{object} runs {found}, not {expected}");
    }
    Ok(())
}
