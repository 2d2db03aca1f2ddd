//! A live tenant with a joined worker is frozen and thawed: no container restarts, its node stays Ready, and people are told why.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use stoker_lab::demo::TENANT;

use crate::conditions::find;
use crate::pods::{restarts, uids};
use crate::world::{Tenant, World, eventually};

/// A kubelet that is not told looks about once a minute.
const SOON: Duration = Duration::from_secs(20);
/// Longer than a node's lease (40 s), after which it would not be Ready any more.
const LEASE: Duration = Duration::from_secs(50);

pub(crate) async fn a_live_tenant_is_frozen_and_thawed_without_a_restart(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let before = world.pods(TENANT).await?;
    let (pods, restarted) = (uids(&before), restarts(&before));
    ensure!(write(&tenant).await.is_ok(), "not frozen yet");

    let all = json!({ "blockCreation": true, "blockUpdate": true, "blockDeletion": true });
    let took = permit(world, &tenant, all, "WritesLimited", "WriteLimited").await?;
    println!("frozen after {:.2} s", took.as_secs_f64());
    let refusal = match write(&tenant).await {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message,
        other => bail!("a frozen tenant answered {other:?}"),
    };
    ensure!(refusal.contains("writes are frozen"), "{refusal}");
    // Every API server, by its own address.
    for _ in 0..10 {
        ensure!(write(&tenant).await.is_err(), "an API server is not frozen");
    }
    let frozen = Instant::now();
    while frozen.elapsed() < LEASE {
        ensure!(nodes_ready(&tenant).await?, "a node is not Ready any more");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    let took = permit(world, &tenant, Value::Null, "Writable", "Ready").await?;
    println!("thawed after {:.2} s", took.as_secs_f64());
    write(&tenant).await.context("writing after the thaw")?;
    let after = world.pods(TENANT).await?;
    ensure!(
        uids(&after) == pods && restarts(&after) == restarted,
        "control-plane pods were replaced or restarted"
    );
    Ok(())
}

/// Sets `spec.writePermissions` and waits until the tenant says that they hold.
async fn permit(
    world: &World,
    tenant: &Tenant,
    blocked: Value,
    reason: &str,
    shown: &str,
) -> Result<Duration> {
    let begun = Instant::now();
    let patch = Patch::Merge(json!({ "spec": { "writePermissions": blocked } }));
    let params = PatchParams::default();
    let tenants = world.tenants(&tenant.namespace);
    let patched = tenants.patch(&tenant.name, &params, &patch).await?;
    eventually(SOON, reason, async || {
        let status = world.status(&tenant.name).await?;
        let found = find(&status.conditions, "WritePermissionsApplied").context("no condition")?;
        let said = format!("{:?}", status.kubernetes_resources.version.status);
        ensure!(
            found.reason == reason
                && found.observed_generation == patched.metadata.generation
                && said == shown,
            "{said}, {found:?}"
        );
        Ok(())
    })
    .await?;
    Ok(begun.elapsed())
}

/// Makes an object and removes it.
async fn write(tenant: &Tenant) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client.clone());
    let map = ConfigMap {
        metadata: ObjectMeta {
            generate_name: Some("write-".into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let made = maps.create(&PostParams::default(), &map).await?;
    maps.delete(&made.name_any(), &DeleteParams::default())
        .await
        .map(drop)
}

async fn nodes_ready(tenant: &Tenant) -> Result<bool> {
    let nodes: Api<Node> = Api::all(tenant.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| &status.conditions);
        conditions
            .flatten()
            .any(|found| found.type_ == "Ready" && found.status == "True")
    };
    Ok(!nodes.is_empty() && nodes.iter().all(ready))
}
