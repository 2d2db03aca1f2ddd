//! Keys that cannot be lost: Secrets of them deleted or damaged come back with the same bytes, and where nothing is left of
//! them that is said and no new ones are made. The operator's process against a real API server and pool, without nodes.

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
use std::time::Duration;

use bare::{Bare, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const KEYS: [&str; 4] = [
    "one-ca",
    "one-encryption-config",
    "one-front-proxy-ca-certificate",
    "one-sa-certificate",
];

type Data = BTreeMap<String, ByteString>;

async fn keys(secrets: &Api<Secret>) -> Vec<Option<Data>> {
    let found = KEYS.map(|name| async { secrets.get_opt(name).await.unwrap()?.data });
    futures::future::join_all(found).await
}

async fn same_again(secrets: &Api<Secret>, what: &str, before: &[Option<Data>], uids: &[String]) {
    until(what, async || {
        let mut fresh = true;
        for (name, uid) in KEYS.iter().zip(uids) {
            let found = secrets.get_opt(name).await.unwrap();
            fresh &= found.is_some_and(|found| {
                found.metadata.deletion_timestamp.is_none() && found.uid().as_ref() != Some(uid)
            });
        }
        fresh && keys(secrets).await == before
    })
    .await;
}

async fn uids(secrets: &Api<Secret>) -> Vec<String> {
    let found = KEYS.map(|name| async { secrets.get(name).await.unwrap().uid().unwrap() });
    futures::future::join_all(found).await
}

async fn born(bare: &Bare) -> Api<Secret> {
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    bare.secrets("a")
}

/// Takes a Secret away for good, finalizer and all.
async fn destroy(secrets: &Api<Secret>, name: &str) {
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    secrets
        .patch_metadata(name, &PatchParams::default(), &none)
        .await
        .unwrap();
    secrets
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
}

async fn etcdctl(bare: &Bare, arguments: &[&str]) -> String {
    let output = bare.pool.etcdctl().args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn copies(bare: &Bare) -> usize {
    let keys = bare.pool_keys().await;
    let copies = keys
        .iter()
        .filter(|key| key.starts_with("stoker.dev/escrow/"));
    copies.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_deleted_or_damaged_come_back_with_the_same_bytes() {
    let bare = Bare::start().await;
    let secrets = born(&bare).await;
    let before = keys(&secrets).await;
    assert!(before.iter().all(Option::is_some));

    let operator = bare.operator();
    // One by one: nothing but the finalizer keeps the bytes until they are back.
    for name in KEYS {
        let old = secrets.get(name).await.unwrap().uid();
        secrets
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        until("the deleted Secret is back", async || {
            let found = secrets.get_opt(name).await.unwrap();
            found.is_some_and(|found| {
                found.uid() != old && found.metadata.deletion_timestamp.is_none()
            })
        })
        .await;
        assert_eq!(keys(&secrets).await, before, "after {name}");
    }
    // Damaged.
    for (name, entry) in [
        ("one-ca", "ca.key"),
        ("one-encryption-config", "encryption-config.yaml"),
    ] {
        let garbage = Patch::Merge(json!({ "data": { entry: "Z2FyYmFnZQ==" } }));
        secrets
            .patch(name, &PatchParams::default(), &garbage)
            .await
            .unwrap();
        until("the damaged Secret is mended", async || {
            keys(&secrets).await == before
        })
        .await;
    }
    // All of them at once, finalizers and all, while nobody looks.
    operator.kill();
    let old = uids(&secrets).await;
    for name in KEYS {
        destroy(&secrets, name).await;
    }
    let _operator = bare.operator();
    same_again(&secrets, "all keys are back", &before, &old).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_this_operator_cannot_open_is_renewed_while_the_keys_live() {
    let bare = Bare::start().await;
    let secrets = born(&bare).await;
    let before = keys(&secrets).await;
    let escrow = bare.secrets("stoker-system");
    destroy(&escrow, "stoker-escrow-key").await;
    let operator = bare.operator();
    bare.tenant_reason("a", "one", "Ready", "PodsStarting")
        .await;
    until("the copy is sealed with the new key", async || {
        bare.log()
            .contains("escrow copy renewed with the key at hand")
    })
    .await;
    operator.kill();
    let old = uids(&secrets).await;
    for name in KEYS {
        destroy(&secrets, name).await;
    }
    let _operator = bare.operator();
    same_again(&secrets, "all keys are back", &before, &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_which_nothing_is_left_are_reported_and_never_replaced() {
    let bare = Bare::start().await;
    let secrets = born(&bare).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(bare.client.clone(), "a");
    for name in ["one-ca", "one-sa-certificate", "one-encryption-config"] {
        let kept = secrets.get(name).await.unwrap();
        destroy(&secrets, name).await;
        etcdctl(&bare, &["del", "stoker.dev/escrow/", "--prefix"]).await;
        let operator = bare.operator();
        let message = bare.tenant_reason("a", "one", "Ready", "KeyLost").await;
        assert!(
            message.contains(name) && message.contains("no escrow copy"),
            "{message}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            secrets.get_opt(name).await.unwrap().is_none(),
            "{name} was replaced"
        );
        // Whatever does not need the key is kept up meanwhile.
        let policy = policies.get("one").await.unwrap();
        policies
            .delete("one", &DeleteParams::default())
            .await
            .unwrap();
        until("the policy is back while a key is lost", async || {
            let found = policies.get_opt("one").await.unwrap();
            found.is_some_and(|found| found.uid() != policy.uid())
        })
        .await;
        // Restored from backup, everything goes on, and there is a copy again.
        let restored = Secret {
            metadata: kube::core::ObjectMeta {
                name: kept.metadata.name.clone(),
                labels: kept.metadata.labels.clone(),
                ..Default::default()
            },
            data: kept.data.clone(),
            ..Default::default()
        };
        secrets
            .create(&PostParams::default(), &restored)
            .await
            .unwrap();
        bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
            .await;
        assert_eq!(copies(&bare).await, 1);
        operator.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_leaves_no_secret_behind() {
    let bare = Bare::start().await;
    let secrets = born(&bare).await;
    let _operator = bare.operator();
    let sealed = etcdctl(&bare, &["get", "stoker.dev/escrow/", "--prefix"]).await;
    assert!(!sealed.contains("PRIVATE KEY"), "the copy can be read");
    bare.tenants("a")
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    until("the tenant is gone", async || {
        bare.tenants("a").get_opt("one").await.unwrap().is_none()
    })
    .await;
    let left = secrets
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let left: Vec<String> = left.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(bare.pool_users().await, Vec::<String>::new());
}
