//! Devices on a joined node, by the Kubernetes project's own sample device plugin: what a GPU is to kubelet and scheduler.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stoker_lab::demo::TENANT;
use stoker_lab::host::Host;
use stoker_lab::images;

use crate::pods::restarts;
use crate::world::{World, eventually};

/// What the plugin's devices are called.
const RESOURCE: &str = "example.com/resource";
const SYSTEM: &str = "kube-system";
const PLUGIN: &str = "sample-device-plugin";
/// The plugin waits five seconds between two looks, a kubelet takes a moment to start.
const SOON: Duration = Duration::from_mins(1);

/// A pod with a device runs, one for which none is left waits. A kubelet that restarts takes the plugin's devices back and
/// leaves the pod alone; without the plugin no device is healthy, and with it they are again.
pub(crate) async fn a_pod_gets_a_device_and_restarts_of_plugin_and_kubelet_lose_none(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let worker = world.lab.host("worker-1")?;
    let image = images::sample_device_plugin(world.lab.upstream()).await?;
    images::import(&worker, std::slice::from_ref(&image)).await?;
    let client = &tenant.client;
    let tried = async {
        start_plugin(client, &image.references[0]).await?;
        allocatable(client, "2").await?;

        create(client, "one-device", 1).await?;
        let running = phase(client, "one-device", "Running").await?;
        ensure!(
            has_a_device(world, "one-device").await?,
            "no device is in it"
        );
        create(client, "two-devices", 2).await?;
        waits_for_devices(client, "two-devices").await?;

        let before = registrations(&worker)?;
        worker.restart("kubelet")?;
        // It removes the plugins' sockets as it starts, which tells them to come again.
        eventually(SOON, "the plugin has registered again", async || {
            ensure!(registrations(&worker)? > before, "it has not");
            Ok(())
        })
        .await?;
        allocatable(client, "2").await?;
        let after = phase(client, "one-device", "Running").await?;
        ensure!(
            after.uid() == running.uid() && restarts(std::slice::from_ref(&after)) == 0,
            "the pod was replaced or restarted"
        );
        ensure!(
            has_a_device(world, "one-device").await?,
            "its device is gone"
        );

        stop_plugin(client).await?;
        allocatable(client, "0").await?;
        delete(client, "one-device").await?;
        // Free, were they healthy.
        waits_for_devices(client, "two-devices").await?;
        start_plugin(client, &image.references[0]).await?;
        allocatable(client, "2").await?;
        phase(client, "two-devices", "Running").await.map(drop)
    }
    .await;
    for pod in ["one-device", "two-devices"] {
        delete(client, pod).await?;
    }
    stop_plugin(client).await?;
    // What containerd made for the mounts that the plugin asks for.
    let left = worker.run(["sh", "-c", "rmdir /tmp/Dev-1 /tmp/Dev-2 2>/dev/null; true"]);
    left.await.map(drop).and(tried)
}

/// The `DaemonSet` of `test/e2e/testing-manifests/sample-device-plugin`, without what only its other modes need.
async fn start_plugin(client: &Client, image: &str) -> Result<()> {
    let labels = json!({ "k8s-app": PLUGIN });
    let folder = "/var/lib/kubelet/device-plugins";
    let plugin = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": PLUGIN },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "tolerations": [{ "operator": "Exists" }],
                    "volumes": [
                        { "name": "device-plugin", "hostPath": { "path": folder } },
                        { "name": "tmp", "emptyDir": {} },
                    ],
                    "containers": [{
                        "name": PLUGIN, "image": image,
                        "env": [{ "name": "PLUGIN_SOCK_DIR", "value": folder }],
                        "securityContext": { "privileged": true },
                        "volumeMounts": [
                            { "name": "device-plugin", "mountPath": folder },
                            { "name": "tmp", "mountPath": "/tmp" },
                        ],
                    }],
                },
            },
        },
    });
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), SYSTEM);
    sets.patch(
        PLUGIN,
        &PatchParams::apply("e2e").force(),
        &Patch::Apply(plugin),
    )
    .await
    .context("applying the plugin")
    .map(drop)
}

/// Returns when its pods are gone.
async fn stop_plugin(client: &Client) -> Result<()> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), SYSTEM);
    match sets.delete(PLUGIN, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => drop(other.context("deleting the plugin")?),
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let ours = ListParams::default().labels(&format!("k8s-app={PLUGIN}"));
    eventually(SOON, "the plugin has ended", async || {
        let left = pods.list(&ours).await?.items.len();
        ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await
}

/// How often the kubelet has taken up the plugin.
fn registrations(worker: &Host) -> Result<usize> {
    let log =
        std::fs::read_to_string(worker.log("kubelet")).context("reading the kubelet's log")?;
    let takes_up = |line: &&str| line.contains("registration request") && line.contains(RESOURCE);
    Ok(log.lines().filter(takes_up).count())
}

/// Waits until this many devices can be given to pods.
async fn allocatable(client: &Client, wanted: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    eventually(
        SOON,
        &format!("{wanted} devices are allocatable"),
        async || {
            let nodes = nodes.list(&ListParams::default()).await?.items;
            let of = |node: &Node| {
                Some(
                    node.status
                        .as_ref()?
                        .allocatable
                        .as_ref()?
                        .get(RESOURCE)?
                        .0
                        .clone(),
                )
            };
            let found: Vec<_> = nodes.iter().filter_map(of).collect();
            ensure!(found == [wanted], "{found:?}");
            Ok(())
        },
    )
    .await
}

async fn create(client: &Client, name: &str, devices: u8) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "work", "image": images::agnhost_reference(), "args": ["pause"],
                "resources": { "limits": { RESOURCE: devices.to_string() } },
            }],
        },
    });
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(pod))
        .await
        .context("making a pod")
        .map(drop)
}

/// Returns when it is gone.
async fn delete(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    match pods.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        other => drop(other.context("deleting a pod")?),
    }
    eventually(SOON, "a pod is gone", async || {
        ensure!(pods.get_opt(name).await?.is_none(), "{name} is there");
        Ok(())
    })
    .await
}

async fn phase(client: &Client, name: &str, wanted: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    eventually(SOON, &format!("{name} is {wanted}"), async || {
        let pod = pods.get(name).await?;
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        ensure!(phase == Some(wanted), "{:?}", pod.status);
        Ok(pod)
    })
    .await
}

/// Waits until the scheduler says that there are too few devices.
async fn waits_for_devices(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    eventually(SOON, &format!("{name} waits for devices"), async || {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let says = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find_map(|found| found.message);
        let says = says.unwrap_or_default();
        ensure!(
            status.phase.as_deref() == Some("Pending")
                && says.contains(&format!("Insufficient {RESOURCE}")),
            "{:?}: {says}",
            status.phase
        );
        Ok(())
    })
    .await
}

/// The plugin mounts a path of its device's name into the container.
async fn has_a_device(world: &World, pod: &str) -> Result<bool> {
    for device in ["Dev-1", "Dev-2"] {
        let look = format!("--file_mode=/tmp/{device}");
        let arguments = ["exec", pod, "--", "/agnhost", "mounttest", &look];
        if world.lab.kubectl_with(TENANT, &arguments).await.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}
