//! The management cluster is lost with everything on it, and another one is made from the pool and the escrow key, as
//! `docs/recovery.md` says. The tenant's node is joined and knows nothing of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use stoker_lab::demo::TENANT;
use stoker_lab::product::{DATA_STORE, NAMESPACE};

use crate::node_lease::renewed;
use crate::pods::{restarts, uids};
use crate::world::{Tenant, World, eventually};

const ESCROW_KEY: &str = "stoker-escrow-key";
/// Secrets whose bytes nobody could make anew.
const KEYS: [&str; 4] = [
    "ca",
    "encryption-config",
    "front-proxy-ca-certificate",
    "sa-certificate",
];
/// A kubelet asks for its lease every ten seconds.
const SEEN_AGAIN: Duration = Duration::from_mins(1);

pub(crate) async fn a_lost_management_cluster_comes_back_from_the_pool_and_the_escrow_key(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let endpoint = world.status(TENANT).await?.control_plane_endpoint;
    let keys = keys(world).await?;
    let before = workload(&tenant).await?;
    ensure!(!before.is_empty(), "nothing runs in the tenant");
    let kept = world.secrets(NAMESPACE).get(ESCROW_KEY).await?;

    world.lab.lose_management().await?;
    let lost = Instant::now();
    world.lab.up().await?;
    let up = lost.elapsed();
    restore_escrow_key(world, &kept).await?;
    world.lab.install_stoker().await?;
    let installed = lost.elapsed();
    apply_recovered(world).await?;
    let tenant = world.ready(TENANT).await?;
    let ready = lost.elapsed();

    ensure!(
        world.status(TENANT).await?.control_plane_endpoint == endpoint,
        "another endpoint than {endpoint:?}"
    );
    ensure!(keys_of(world).await? == keys, "keys were made anew");
    node_is_seen(&tenant).await?;
    println!(
        "time to rebuild a lost management cluster: {:.1} s to a tenant that is Ready (cluster {:.1} s, Stoker {:.1} s, \
         tenant {:.1} s), {:.1} s to its node seen again",
        ready.as_secs_f64(),
        up.as_secs_f64(),
        installed.as_secs_f64() - up.as_secs_f64(),
        ready.as_secs_f64() - installed.as_secs_f64(),
        lost.elapsed().as_secs_f64(),
    );
    let after = workload(&tenant).await?;
    ensure!(
        uids(&after) == uids(&before) && restarts(&after) == restarts(&before),
        "pods of the tenant were replaced or restarted"
    );
    // Logs and exec through the new API servers, Service and DNS as before.
    world.lab.write_tenant_kubeconfig(TENANT, TENANT).await?;
    world.lab.check_workload(TENANT).await
}

async fn keys(world: &World) -> Result<Vec<BTreeMap<String, ByteString>>> {
    let found = keys_of(world).await?;
    ensure!(found.iter().all(|key| !key.is_empty()), "a key is missing");
    Ok(found)
}

async fn keys_of(world: &World) -> Result<Vec<BTreeMap<String, ByteString>>> {
    let secrets = world.secrets(TENANT);
    let mut found = Vec::new();
    for name in KEYS {
        let secret = secrets.get(&format!("{TENANT}-{name}")).await?;
        found.push(secret.data.unwrap_or_default());
    }
    Ok(found)
}

/// Before the operator first starts: else it makes a key of its own.
async fn restore_escrow_key(world: &World, kept: &Secret) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
    });
    world.lab.apply(&namespace).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": kept.type_,
        "metadata": { "name": ESCROW_KEY, "namespace": NAMESPACE, "labels": kept.labels() },
        "data": kept.data,
    });
    world.lab.apply(&secret).await
}

/// The tenants as the pool tells them, applied as the docs say.
async fn apply_recovered(world: &World) -> Result<()> {
    let operator = "deployment/stoker-operator";
    let program = ["--", "/stoker-operator", "recover", DATA_STORE];
    let exec = [&["-n", NAMESPACE, "exec", operator][..], &program].concat();
    let printed = world.lab.kubectl(&exec).await?;
    let list: Value = serde_json::from_str(&printed).context("what recover printed")?;
    let names: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    ensure!(
        names.iter().any(|item| item["metadata"]["name"] == TENANT),
        "the pool knows no such tenant: {printed}"
    );
    // The lab's load balancer gives addresses in the order of asking: others come after the one that is looked at.
    let (others, first): (Vec<_>, Vec<_>) = names.into_iter().partition(|item| {
        item["kind"] == "TenantControlPlane" && item["metadata"]["name"] != TENANT
    });
    for items in [first, others].iter().filter(|items| !items.is_empty()) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        world.lab.apply(&list).await?;
        world.ready(TENANT).await?;
    }
    Ok(())
}

/// The joined node renews its lease with the new control plane, and is Ready.
async fn node_is_seen(tenant: &Tenant) -> Result<()> {
    let nodes: Api<Node> = Api::all(tenant.client.clone());
    let listed = nodes.list(&ListParams::default()).await?.items;
    ensure!(!listed.is_empty(), "the tenant has lost its node");
    for node in &listed {
        let name = node.name_any();
        let first = renewed(&tenant.client, &name).await?;
        eventually(SEEN_AGAIN, "the node renews its lease", async || {
            ensure!(renewed(&tenant.client, &name).await? > first, "not yet");
            let node = nodes.get(&name).await?;
            ensure!(crate::sleep::is_ready(&node), "{name} is not Ready");
            ensure!(!crate::sleep::is_tainted(&node), "{name} is tainted");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn workload(tenant: &Tenant) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::all(tenant.client.clone());
    Ok(pods.list(&ListParams::default()).await?.items)
}
