//! What is left of a deleted tenant: nothing, or exactly its data.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{BIRTH, World, eventually};

const DROPPED: &str = "dropped";
const KEPT: &str = "kept";

pub(crate) async fn deletion_leaves_nothing_or_exactly_the_data(world: &World) -> Result<()> {
    world.apply_tenant(DROPPED, json!({})).await?;
    world
        .apply_tenant(
            KEPT,
            json!({ "deletion": { "dataRetentionSeconds": 3600 } }),
        )
        .await?;
    for name in [DROPPED, KEPT] {
        let tenant = world.ready(name).await?;
        let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client);
        let marker = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "marker" },
        });
        maps.patch("marker", &PatchParams::apply("e2e"), &Patch::Apply(marker))
            .await?;
    }
    let (dropped, kept) = (
        world.storage_id(DROPPED).await?,
        world.storage_id(KEPT).await?,
    );
    let records = async |id: &str| -> Result<Vec<String>> {
        let all = world.pool_keys("").await?;
        let prefix = format!("/{id}/");
        Ok(all
            .into_iter()
            .filter(|key| key.contains(id) && !key.starts_with(&prefix))
            .collect())
    };
    ensure!(
        !records(&dropped).await?.is_empty(),
        "there is no owner record"
    );
    tokio::try_join!(world.delete(DROPPED), world.delete(KEPT))?;

    nothing_in(world, DROPPED).await?;
    nothing_in(world, KEPT).await?;
    ensure!(
        world.pool_keys(&format!("/{dropped}/")).await?.is_empty(),
        "keys are left"
    );
    ensure!(
        records(&dropped).await?.is_empty(),
        "a record of the purged tenant is left"
    );
    for id in [&dropped, &kept] {
        let (user, role) = world.pool_identity(id).await?;
        ensure!(!user && !role, "{id}: user left: {user}, role left: {role}");
    }

    let marker = format!("/{kept}/configmaps/default/marker");
    ensure!(
        world.pool_keys(&marker).await?.len() == 1,
        "the kept tenant's data is not there"
    );
    let mut left = records(&kept).await?;
    left.sort();
    let wanted = [
        format!("stoker.dev/escrow/{kept}"),
        format!("stoker.dev/manifests/{kept}"),
        format!("stoker.dev/owners/{kept}"),
    ];
    ensure!(
        left == wanted,
        "of the kept tenant there are {left:?}, not {wanted:?}"
    );
    Ok(())
}

/// `kubectl delete namespace`: its Secrets go first, and the tenant still ends in order.
pub(crate) async fn deleting_the_namespace_ends_and_leaves_nothing(world: &World) -> Result<()> {
    let name = "swept";
    world.apply_tenant(name, json!({})).await?;
    world.ready(name).await?;
    let id = world.storage_id(name).await?;
    let namespaces: Api<Namespace> = Api::all(world.management.clone());
    namespaces.delete(name, &DeleteParams::default()).await?;
    eventually(BIRTH, "the namespace is gone", async || {
        let left = namespaces.get_opt(name).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await?;
    nothing_of(world, &id).await
}

/// No key, user or role.
pub(crate) async fn nothing_of(world: &World, id: &str) -> Result<()> {
    let keys: Vec<_> = world
        .pool_keys("")
        .await?
        .into_iter()
        .filter(|key| key.contains(id))
        .collect();
    ensure!(keys.is_empty(), "left in the pool: {keys:?}");
    let (user, role) = world.pool_identity(id).await?;
    ensure!(!user && !role, "{id}: user left: {user}, role left: {role}");
    Ok(())
}

/// No object of any kind but what every namespace has; garbage collection takes a moment.
pub(crate) async fn nothing_in(world: &World, namespace: &str) -> Result<()> {
    let kinds = [
        "api-resources",
        "--verbs=list",
        "--namespaced",
        "-o",
        "name",
    ];
    let kinds = world.lab.kubectl(&kinds).await?;
    let kinds: Vec<_> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events"))
        .collect();
    let kinds = kinds.join(",");
    eventually(
        BIRTH,
        &format!("nothing is left in {namespace}"),
        async || {
            let found = world
                .lab
                .kubectl(&["-n", namespace, "get", &kinds, "-o", "name"])
                .await?;
            let own = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
            let left: Vec<_> = found.lines().filter(|line| !own.contains(line)).collect();
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        },
    )
    .await
}
