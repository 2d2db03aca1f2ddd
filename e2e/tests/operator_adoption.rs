//! A deleted tenant whose data was kept comes back under its storage id, with its objects and its keys; nobody else's id does.
//! So does every tenant of a management cluster that was lost, on a new one, from the pool and the escrow key.
//! The operator's process against a real API server and pool, without nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
mod bare;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use bare::{Bare, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const KEYS: [&str; 4] = [
    "ca",
    "encryption-config",
    "front-proxy-ca-certificate",
    "sa-certificate",
];

type Data = Option<BTreeMap<String, ByteString>>;

async fn keys(bare: &Bare, tenant: &str) -> Vec<Data> {
    let secrets = bare.secrets("a");
    let mut found = Vec::new();
    for name in KEYS {
        let secret = secrets.get_opt(&format!("{tenant}-{name}")).await.unwrap();
        found.push(secret.and_then(|secret| secret.data));
    }
    found
}

async fn storage_id(bare: &Bare, tenant: &str) -> Option<String> {
    let tenant = bare.tenants("a").get(tenant).await.unwrap();
    Some(tenant.status?.storage?.setup.schema)
}

async fn applied(bare: &Bare, tenant: &str) {
    bare.tenant_reason("a", tenant, "ControlPlaneApplied", "Applied")
        .await;
}

async fn delete(bare: &Bare, tenant: &str) {
    let tenants = bare.tenants("a");
    let params = DeleteParams::default();
    tenants.delete(tenant, &params).await.unwrap();
    until("the tenant is gone", async || {
        tenants.get_opt(tenant).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_data_comes_back_with_its_keys_and_nobody_gets_what_is_anothers() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    let kept = json!({ "deletion": { "dataRetentionSeconds": 3600 } });
    bare.tenant("a", "one", kept).await;
    applied(&bare, "one").await;
    let id = storage_id(&bare, "one").await.unwrap();
    let before = keys(&bare, "one").await;
    assert!(before.iter().all(Option::is_some));
    let object = format!("/{id}/registry/configmaps/default/precious");
    bare.etcdctl(&["put", &object, "value"]).await;

    // While its owner lives, and of an id that never was.
    let asks = |id: &str| json!({ "dataStoreSchema": id });
    bare.tenant("a", "thief", asks(&id)).await;
    let message = bare
        .tenant_reason("a", "thief", "DataStoreReady", "StorageIdOwned")
        .await;
    assert!(message.contains("a/one"), "{message}");
    let unknown = "0123456789abcdef0123456789abcdef";
    bare.tenant("a", "lost", asks(unknown)).await;
    let message = bare
        .tenant_reason("a", "lost", "DataStoreReady", "NothingToAdopt")
        .await;
    assert!(message.contains(unknown), "{message}");
    for refused in ["thief", "lost"] {
        assert_eq!(storage_id(&bare, refused).await, None, "{refused}");
        assert!(keys(&bare, refused).await.iter().all(Option::is_none));
        delete(&bare, refused).await;
    }
    assert_eq!(bare.pool_users().await, [id.as_str()]);

    // Under another name, too: its keys have none.
    delete(&bare, "one").await;
    assert!(bare.pool_users().await.is_empty());
    assert!(keys(&bare, "one").await.iter().all(Option::is_none));
    let username = json!({ "dataStoreSchema": id, "dataStoreUsername": id });
    bare.tenant("a", "two", username).await;
    applied(&bare, "two").await;
    assert_eq!(storage_id(&bare, "two").await.as_ref(), Some(&id));
    assert_eq!(keys(&bare, "two").await, before);
    assert_eq!(bare.etcdctl(&["get", &object]).await[1], "value");
    assert_eq!(bare.pool_users().await, [id.as_str()]);
    let record = bare
        .etcdctl(&["get", &format!("stoker.dev/owners/{id}")])
        .await;
    assert!(
        record[1].contains(r#""name":"two""#) && !record[1].contains("retainedUntil"),
        "{record:?}"
    );
    // As any other from now on: what is kept nowhere goes with it.
    delete(&bare, "two").await;
    let left = bare.pool_keys().await;
    assert!(!left.iter().any(|key| key.contains(&id)), "{left:?}");
    bare.tenant("a", "late", asks(&id)).await;
    bare.tenant_reason("a", "late", "DataStoreReady", "NothingToAdopt")
        .await;
}

/// A management cluster in which nothing is but its namespaces and the `DataStore` of another one's pool.
async fn beside(old: &Bare, escrow_key: Option<&Secret>) -> Bare {
    let new = Box::pin(Bare::start()).await;
    if let Some(key) = escrow_key {
        let copy = Secret {
            metadata: kube::core::ObjectMeta {
                name: key.metadata.name.clone(),
                ..Default::default()
            },
            ..key.clone()
        };
        let secrets = new.secrets("stoker-system");
        secrets.create(&PostParams::default(), &copy).await.unwrap();
    }
    new.data_store("default", old.data_store_spec()).await;
    new.namespace("a").await;
    new
}

/// Runs `stoker-operator recover`, as a person does in the operator's pod.
fn run_recover(bare: &Bare) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bare.kubeconfig()).unwrap();
    Command::new(bare::built("stoker-operator"))
        .args(["recover", "default"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

/// What it prints, applied as `kubectl apply` does.
async fn recover(bare: &Bare) -> Vec<Value> {
    let output = run_recover(bare);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tenants = list["items"].as_array().unwrap().clone();
    let is_tenant = |item: &Value| item["kind"] == "TenantControlPlane";
    assert!(
        tenants.iter().all(is_tenant),
        "the namespace is there: {tenants:?}"
    );
    for tenant in &tenants {
        let name = tenant["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        let patch = Patch::Apply(tenant);
        bare.tenants("a")
            .patch(name, &params, &patch)
            .await
            .unwrap();
    }
    tenants
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_management_cluster_is_built_again_from_the_pool_and_the_escrow_key() {
    let old = Bare::start().await;
    old.data_store("default", old.data_store_spec()).await;
    let operator = old.operator();
    old.namespace("a").await;
    let kept = json!({ "deletion": { "dataRetentionSeconds": 3600 } });
    old.tenant("a", "deleted", kept).await;
    old.tenant("a", "one", json!({})).await;
    applied(&old, "deleted").await;
    applied(&old, "one").await;
    delete(&old, "deleted").await;
    let id = storage_id(&old, "one").await.unwrap();
    let before = keys(&old, "one").await;
    let object = format!("/{id}/registry/configmaps/default/precious");
    old.etcdctl(&["put", &object, "value"]).await;
    // What is changed later is in the copy too.
    let copy = format!("stoker.dev/manifests/{id}");
    let first = old.etcdctl(&["get", &copy, "--hex"]).await;
    assert!(!first.is_empty(), "no manifest is kept");
    let change = json!({
        "metadata": { "labels": { "team": "blue" }, "annotations": { "note": "kept" } },
        "spec": { "networkProfile": { "certSANs": ["api.example.com"] } },
    });
    let (tenants, change) = (old.tenants("a"), Patch::Merge(change));
    let params = PatchParams::default();
    let written = tenants.patch("one", &params, &change).await.unwrap();
    until("the copy follows", async || {
        old.etcdctl(&["get", &copy, "--hex"]).await != first
    })
    .await;
    // The spec and the labels are two events, and may be two passes.
    until("nothing is left to copy", async || {
        let now = old.etcdctl(&["get", &copy, "--hex"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        now == old.etcdctl(&["get", &copy, "--hex"]).await
    })
    .await;
    let secrets = old.secrets("stoker-system");
    let escrow_key = secrets.get("stoker-escrow-key").await.unwrap();
    operator.kill();

    // Without the key none of its keys is made anew, and nobody can read what it was.
    let keyless = beside(&old, None).await;
    let output = run_recover(&keyless);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("put it back from your backup"),
        "{said}"
    );
    let operator = keyless.operator();
    let adopts = json!({ "dataStoreSchema": id });
    keyless.tenant("a", "one", adopts.clone()).await;
    keyless
        .tenant_reason("a", "one", "ControlPlaneApplied", "KeyLost")
        .await;
    assert!(keys(&keyless, "one").await.iter().all(Option::is_none));
    let output = run_recover(&keyless);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("a/one") && said.contains("not the one at hand"),
        "{said}"
    );
    operator.kill();

    let new = beside(&old, Some(&escrow_key)).await;
    let _operator = new.operator();
    let printed = recover(&new).await;
    assert_eq!(printed.len(), 1, "only who lives: {printed:?}");
    applied(&new, "one").await;
    assert_eq!(storage_id(&new, "one").await.as_ref(), Some(&id));
    assert_eq!(keys(&new, "one").await, before);
    let again = new.tenants("a").get("one").await.unwrap();
    assert_eq!(again.metadata.labels, written.metadata.labels);
    assert_eq!(again.metadata.annotations.unwrap()["note"], "kept");
    let spec = |spec| serde_json::to_value(spec).unwrap();
    let mut wanted = spec(written.spec);
    wanted["dataStore"] = "default".into();
    wanted["dataStoreSchema"] = id.as_str().into();
    assert_eq!(spec(again.spec), wanted);
    assert_eq!(old.etcdctl(&["get", &object]).await[1], "value");
    assert_eq!(old.pool_users().await, [id.as_str()]);
}
