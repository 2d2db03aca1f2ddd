//! The operator's process against a real API server and pool without nodes: what it writes at birth, what it says of
//! bad input, what it heals and what it refuses to heal, and that deletion ends and leaves nothing, wherever it is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
mod bare;
#[path = "operator_support/namespace.rs"]
mod namespace;
#[path = "operator_support/pod_trouble.rs"]
mod pod_trouble;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bare::{Bare, until};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

/// A Secret that can be made anew.
const CERTIFICATE: &str = "one-api-server-certificate";
/// Fewer than the operator answers at once.
const TAMPERINGS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_born_in_one_pass_and_tampering_is_healed() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    until("the DataStore is ready", async || {
        bare.data_stores()
            .get("default")
            .await
            .unwrap()
            .status
            .is_some_and(|status| status.ready)
    })
    .await;
    let begun = Instant::now();
    bare.tenant("a", "one", json!({})).await;
    let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), "a");
    until("the Deployment exists", async || {
        deployments.get_opt("one").await.unwrap().is_some()
    })
    .await;
    println!("apply to Deployment: {:?}", begun.elapsed());
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    bare.tenant_reason("a", "one", "Ready", "PodsStarting")
        .await;
    let tenant = bare.tenants("a").get("one").await.unwrap();
    let id = tenant
        .status
        .as_ref()
        .unwrap()
        .storage
        .as_ref()
        .unwrap()
        .setup
        .schema
        .clone();
    assert_eq!(bare.pool_users().await, std::slice::from_ref(&id));
    assert_eq!(
        deployments.get("one").await.unwrap().metadata.generation,
        Some(1)
    );

    // A derived Secret that is deleted or corrupted comes back, however closely one follows the other.
    for _ in 0..TAMPERINGS {
        delete_certificate(&bare).await;
        corrupt_certificate(&bare).await;
    }
}

async fn delete_certificate(bare: &Bare) {
    let secrets = bare.secrets("a");
    let before = secrets.get(CERTIFICATE).await.unwrap();
    secrets
        .delete(CERTIFICATE, &DeleteParams::default())
        .await
        .unwrap();
    until("the deleted certificate is back", async || {
        let found = secrets.get_opt(CERTIFICATE).await.unwrap();
        found.is_some_and(|found| found.uid() != before.uid())
    })
    .await;
}

async fn corrupt_certificate(bare: &Bare) {
    let secrets = bare.secrets("a");
    let garbage = Patch::Merge(json!({ "data": { "apiserver.crt": "Z2FyYmFnZQ==" } }));
    secrets
        .patch(CERTIFICATE, &PatchParams::default(), &garbage)
        .await
        .unwrap();
    until("the corrupted certificate is replaced", async || {
        let found: Secret = secrets.get(CERTIFICATE).await.unwrap();
        found.data.unwrap()["apiserver.crt"]
            .0
            .starts_with(b"-----BEGIN CERTIFICATE")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_one_name_in_two_namespaces_share_nothing() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    // Names that collide when namespace and name are simply joined.
    for (namespace, name) in [("a", "b-c"), ("a-b", "c"), ("b", "c")] {
        bare.namespace(namespace).await;
        bare.tenant(namespace, name, json!({})).await;
    }
    let mut ids = BTreeSet::new();
    for (namespace, name) in [("a", "b-c"), ("a-b", "c"), ("b", "c")] {
        bare.tenant_reason(namespace, name, "ControlPlaneApplied", "Applied")
            .await;
        let tenant = bare.tenants(namespace).get(name).await.unwrap();
        ids.insert(tenant.status.unwrap().storage.unwrap().setup.schema);
    }
    assert_eq!(ids.len(), 3);
    assert_eq!(
        bare.pool_users().await.into_iter().collect::<BTreeSet<_>>(),
        ids
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_ends_and_leaves_what_it_should_wherever_the_operator_is_killed() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    // Killed at several points of creation …
    for (round, wait) in [0_u64, 15, 30, 60, 120, 250].into_iter().enumerate() {
        let name = format!("tenant-{round}");
        let operator = bare.operator();
        let retention = if round % 2 == 0 { 0 } else { 3600 };
        tokio::time::sleep(Duration::from_millis(400)).await;
        bare.tenant(
            "a",
            &name,
            json!({ "deletion": { "dataRetentionSeconds": retention } }),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        operator.kill();
    }
    {
        let _operator = bare.operator();
        for round in 0..6 {
            bare.tenant_reason(
                "a",
                &format!("tenant-{round}"),
                "ControlPlaneApplied",
                "Applied",
            )
            .await;
        }
        assert_eq!(
            bare.pool_users().await.len(),
            6,
            "no user is left over from a killed operator"
        );
    }
    for tenant in bare
        .tenants("a")
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        bare.tenants("a")
            .delete(&tenant.name_any(), &DeleteParams::default())
            .await
            .unwrap();
    }
    // … and of deletion.
    for wait in [30, 60, 90, 150, 300] {
        let operator = bare.operator();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        operator.kill();
    }
    let _operator = bare.operator();
    until("all tenants are gone", async || {
        bare.tenants("a")
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    })
    .await;
    assert_eq!(bare.pool_users().await, Vec::<String>::new());
    let keys = bare.pool_keys().await;
    let of = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(
        (
            of("stoker.dev/owners/"),
            of("stoker.dev/escrow/"),
            of("stoker.dev/manifests/"),
            keys.len()
        ),
        (3, 3, 3, 9),
        "owner records, keys and manifests of retained data and nothing else: {keys:?}"
    );

    let sets: Api<ReplicaSet> = Api::namespaced(bare.client.clone(), "a");
    assert!(
        sets.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_made_again_under_the_same_name_inherits_nothing() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    let mut seen = BTreeSet::new();
    for round in 1..=3 {
        bare.tenant(
            "a",
            "one",
            json!({ "deletion": { "dataRetentionSeconds": 3600 } }),
        )
        .await;
        bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
            .await;
        let tenant = bare.tenants("a").get("one").await.unwrap();
        let id = tenant.status.unwrap().storage.unwrap().setup.schema;
        let authority = bare.secrets("a").get("one-ca").await.unwrap().data.unwrap();
        assert!(seen.insert(id), "the storage id is another one");
        assert!(seen.insert(String::from_utf8(authority["ca.crt"].0.clone()).unwrap()));
        bare.tenants("a")
            .delete("one", &DeleteParams::default())
            .await
            .unwrap();
        until("the tenant is gone", async || {
            bare.tenants("a").get_opt("one").await.unwrap().is_none()
        })
        .await;
        let left = bare
            .secrets("a")
            .list(&ListParams::default())
            .await
            .unwrap();
        assert!(left.items.is_empty(), "Secrets go before the object does");
        let kept = bare
            .secrets("stoker-system")
            .list(&ListParams::default())
            .await
            .unwrap();
        let kept: Vec<String> = kept.items.iter().map(ResourceExt::name_any).collect();
        assert_eq!(kept, ["stoker-escrow-key"], "keys wait in the pool");
        let keys = bare.pool_keys().await;
        let copies = keys
            .iter()
            .filter(|key| key.starts_with("stoker.dev/escrow/"));
        assert_eq!(copies.count(), round, "keys of retained data: {keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_without_a_pool_waits_says_why_and_has_a_way_out() {
    let mut bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    drop(operator);
    bare.pool.kill();
    let _operator = bare.operator();
    bare.tenants("a")
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    let message = bare
        .tenant_reason("a", "one", "Ready", "DeletionBlocked")
        .await;
    assert!(message.contains("stoker.dev/abandon-data="), "{message}");
    let id = message.split("abandon-data=").nth(1).unwrap();
    let annotate = json!({ "metadata": { "annotations": { "stoker.dev/abandon-data": id } } });
    bare.tenants("a")
        .patch("one", &PatchParams::default(), &Patch::Merge(annotate))
        .await
        .unwrap();
    until("the tenant is gone", async || {
        bare.tenants("a").get_opt("one").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_data_stores_are_refused_with_the_reason() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({ "dataStore": "none" }))
        .await;
    let message = bare
        .tenant_reason("a", "one", "DataStoreReady", "DataStoreNotFound")
        .await;
    assert!(message.contains("none"), "{message}");

    let mut refused = bare.data_store_spec();
    refused["endpoints"] = json!(["127.0.0.1:1"]);
    bare.data_store("refused", refused).await;
    let mut unreadable = bare.data_store_spec();
    unreadable["tlsConfig"]["clientCertificate"]["privateKey"] = json!({ "secretReference": {
        "name": "missing", "namespace": "a", "keyPath": "tls.key",
    }});
    bare.data_store("unreadable", unreadable).await;
    for (name, says) in [
        ("refused", "127.0.0.1:1"),
        ("unreadable", "Secret a/missing does not exist"),
    ] {
        until(name, async || {
            let store = bare.data_stores().get(name).await.unwrap();
            let conditions = store
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            conditions
                .iter()
                .any(|found| found.status == "False" && found.message.contains(says))
        })
        .await;
    }
    // The tenant is served as soon as its store is there.
    bare.data_store("none", bare.data_store_spec()).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
}
