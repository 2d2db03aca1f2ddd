//! `DataStore`s against a real API server and real pools: what is said of those that are not fit, when one is not let go,
//! and that a tenant keeps its way to a pool whose name is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
mod bare;
#[path = "operator_support/promptness.rs"]
mod promptness;
#[path = "operator_support/silent_pool.rs"]
mod silent_pool;
#[path = "support/stalling_proxy.rs"]
mod stalling_proxy;

use std::time::{Duration, Instant};

use bare::{Bare, until};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoker_api::v1alpha1::DataStore;
use stoker_lab::bare::BareEtcd;
use stoker_lab::command::run;
use stoker_lab::credentials;
use stoker_lab::versions::ETCD_BELOW_FLOOR;

/// Waits until a condition of the store has this reason; returns its message once an event says the same.
async fn store_reason(bare: &Bare, name: &str, condition: &str, reason: &str) -> String {
    let events: Api<Event> = Api::all(bare.client.clone());
    let message = async || {
        let store = bare.data_stores().get(name).await.unwrap();
        let conditions = store.status.unwrap_or_default().conditions;
        let mut found = conditions.into_iter();
        let found = found.find(|found| found.type_ == condition && found.reason == reason);
        found.map(|found| found.message)
    };
    until(&format!("{name}: {condition}={reason}"), async || {
        message().await.is_some()
    })
    .await;
    until(&format!("{name}: event {reason}"), async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.iter().any(|event| {
            let on = event.regarding.as_ref().and_then(|on| on.name.as_deref());
            on == Some(name) && event.reason.as_deref() == Some(reason)
        })
    })
    .await;
    message().await.unwrap_or_default()
}

async fn is_gone(bare: &Bare, name: &str) -> bool {
    bare.data_stores().get_opt(name).await.unwrap().is_none()
}

async fn annotate(bare: &Bare, name: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { "stoker.dev/abandon-data": value } } });
    let patch = Patch::Merge(patch);
    let stores = bare.data_stores();
    stores
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn delete(bare: &Bare, name: &str) {
    let stores: Api<DataStore> = bare.data_stores();
    stores.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unfit_stores_say_why_in_a_condition_and_an_event() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let good = bare.data_store_spec();

    let mut refused = good.clone();
    refused["endpoints"] = json!(["127.0.0.1:1"]);
    bare.data_store("refused", refused).await;

    // An authority that has signed neither side's certificates.
    let stranger = credentials::authority("stranger").unwrap();
    let mut wrong_ca = good.clone();
    wrong_ca["tlsConfig"]["certificateAuthority"] = json!({
        "certificate": { "content": encoded(stranger.certificate()) },
        "privateKey": { "content": encoded(stranger.key().as_pem()) },
    });
    bare.data_store("wrong-ca", wrong_ca).await;

    let old = BareEtcd::start_secured(ETCD_BELOW_FLOOR).await.unwrap();
    bare.data_store("old", Bare::spec_of(&old)).await;

    let message = store_reason(&bare, "refused", "Ready", "ConnectionRefused").await;
    assert!(message.contains("127.0.0.1:1"), "{message}");
    store_reason(&bare, "wrong-ca", "Ready", "UntrustedCertificate").await;
    let message = store_reason(&bare, "old", "Ready", "VersionBelowFloor").await;
    assert!(message.contains("3.6.14"), "{message}");

    run(bare.pool.etcdctl().args(["auth", "disable"]))
        .await
        .unwrap();
    bare.data_store("open", good).await;
    let message = store_reason(&bare, "open", "Ready", "AuthDisabled").await;
    assert!(message.contains("auth enable"), "{message}");
    run(bare.pool.etcdctl().args(["auth", "enable"]))
        .await
        .unwrap();
    store_reason(&bare, "open", "Ready", "Available").await;

    // What never worked goes when it is told to.
    delete(&bare, "refused").await;
    until("refused is gone", async || is_gone(&bare, "refused").await).await;
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_retained_data_is_let_go_only_on_demand() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    let keep = json!({ "deletion": { "dataRetentionSeconds": 3600 } });
    bare.tenant("a", "one", keep).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    delete(&bare, "default").await;
    // Soon: the operator's cache may not show yet what the tenant has just recorded.
    until("the store waits for its tenant", async || {
        let message = store_reason(&bare, "default", "Ready", "DeletionBlocked").await;
        message.contains("1 tenant(s)")
    })
    .await;

    let tenants = bare.tenants("a");
    tenants
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    until("the store is kept for the data", async || {
        let store = bare.data_stores().get("default").await.unwrap();
        let conditions = store.status.unwrap_or_default().conditions;
        let says = |text: &str| conditions.iter().any(|found| found.message.contains(text));
        says("1 deleted tenant(s)") && says("stoker.dev/abandon-data=default")
    })
    .await;
    annotate(&bare, "default", "another").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!is_gone(&bare, "default").await, "another name is meant");
    annotate(&bare, "default", "default").await;
    until("the store is let go", async || {
        is_gone(&bare, "default").await
    })
    .await;
    let keys = bare.pool_keys().await;
    assert!(
        keys.iter().any(|key| key.starts_with("stoker.dev/owners/")),
        "letting go deletes nothing: {keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stores_with_one_pool_the_last_remembers_what_is_retained() {
    let bare = Bare::start().await;
    let other = BareEtcd::start_secured(stoker_lab::versions::ETCD)
        .await
        .unwrap();
    bare.data_store("one", bare.data_store_spec()).await;
    bare.data_store("two", bare.data_store_spec()).await;
    bare.data_store("other", Bare::spec_of(&other)).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    let keep = json!({ "dataStore": "one", "deletion": { "dataRetentionSeconds": 3600 } });
    bare.tenant("a", "one", keep).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    let tenants = bare.tenants("a");
    tenants
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    until("the tenant is gone", async || {
        tenants.get_opt("one").await.unwrap().is_none()
    })
    .await;
    for store in ["two", "other"] {
        store_reason(&bare, store, "Ready", "Available").await;
    }
    delete(&bare, "one").await;
    until("one is gone", async || is_gone(&bare, "one").await).await;
    delete(&bare, "two").await;
    let message = store_reason(&bare, "two", "Ready", "DeletionBlocked").await;
    assert!(message.contains("1 deleted tenant(s)"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_without_a_tenant_are_told_and_left_alone() {
    let bare = Bare::start().await;
    let id = "0123456789abcdef0123456789abcdef";
    let record = json!({
        "owner": { "namespace": "a", "name": "lost", "uid": "1" },
        "claimedAt": "2026-01-01T00:00:00Z",
    });
    let key = format!("stoker.dev/owners/{id}");
    run(bare
        .pool
        .etcdctl()
        .args(["put", key.as_str(), record.to_string().as_str()]))
    .await
    .unwrap();
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    let message = store_reason(&bare, "default", "OwnersKnown", "DataWithoutTenant").await;
    assert!(
        message.contains(id) && message.contains("a/lost"),
        "{message}"
    );
    store_reason(&bare, "default", "Ready", "Available").await;
    assert_eq!(bare.pool_keys().await, [key]);
    assert_eq!(bare.pool_users().await, [""; 0]);
}

fn pool_service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "etcd" }, "spec": {
        "selector": { "app": "etcd" }, "ports": [{ "port": 2379 }],
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_the_pool_cannot_be_found_cuts_nobody_off() {
    let bare = Bare::start().await;
    let services: Api<Service> = Api::namespaced(bare.client.clone(), "pool");
    let policies: Api<NetworkPolicy> = Api::namespaced(bare.client.clone(), "a");
    bare.namespace("pool").await;
    bare.namespace("a").await;
    let make_service = async || {
        let params = PatchParams::apply("test");
        let object = Patch::Apply(pool_service());
        services.patch("etcd", &params, &object).await.unwrap();
    };
    make_service().await;
    let mut spec = bare.data_store_spec();
    let endpoints = spec["endpoints"].as_array_mut().unwrap();
    endpoints.push("etcd.pool.svc:2379".into());
    bare.data_store("default", spec).await;
    let operator = bare.operator();
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    let before = policies.get("one").await.unwrap();
    let text = serde_json::to_string(&before.spec).unwrap();
    assert!(text.contains(r#""app":"etcd""#), "only its pods: {text}");

    operator.kill();
    services
        .delete("etcd", &DeleteParams::default())
        .await
        .unwrap();
    let _operator = bare.operator();
    let message = store_reason(&bare, "default", "Ready", "EndpointUnresolved").await;
    assert!(message.contains("etcd.pool.svc:2379"), "{message}");
    bare.tenant_reason("a", "one", "DataStoreReady", "EndpointUnresolved")
        .await;
    let during = policies.get("one").await.unwrap();
    assert_eq!(during.resource_version(), before.resource_version());

    // A new tenant waits; the one that lives is kept up as soon as the name is known again.
    bare.tenant("a", "two", json!({})).await;
    bare.tenant_reason("a", "two", "DataStoreReady", "EndpointUnresolved")
        .await;
    assert!(policies.get_opt("two").await.unwrap().is_none());
    let keys = bare.secrets("a").get_opt("two-ca").await.unwrap();
    assert!(keys.is_none(), "nothing of it is made yet");
    make_service().await;
    for tenant in ["one", "two"] {
        bare.tenant_reason("a", tenant, "ControlPlaneApplied", "Applied")
            .await;
        bare.tenant_reason("a", tenant, "DataStoreReady", "Claimed")
            .await;
    }
    let after = policies.get("one").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_a_tenant_is_not_called_ready_for_long() {
    let mut bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    store_reason(&bare, "default", "Ready", "Available").await;
    bare.pool.kill();
    let begun = Instant::now();
    bare.tenant("a", "one", json!({})).await;
    store_reason(&bare, "default", "Ready", "ConnectionRefused").await;
    println!("first failed call to Ready=False: {:?}", begun.elapsed());
    bare.pool.restart().await.unwrap();
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
}

/// For so long at most other tenants' policies lag behind.
const TOLD: Duration = Duration::from_mins(1);

/// Of a pool that nobody reaches what people wrote is enough, and a restart of the operator opens nothing for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_of_a_pool_are_closed_to_the_tenants_of_others() {
    let bare = Bare::start().await;
    let policies: Api<NetworkPolicy> = Api::namespaced(bare.client.clone(), "a");
    bare.namespace("a").await;
    bare.data_store("default", bare.data_store_spec()).await;
    let operator = bare.operator();
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    let is_closed = async |tenant: &str| {
        let policy = policies.get(tenant).await.unwrap();
        let text = serde_json::to_string(&policy.spec).unwrap();
        text.contains("198.51.100.7/32")
    };
    assert!(!is_closed("one").await);
    let mut spec = bare.data_store_spec();
    spec["endpoints"] = json!(["198.51.100.7:2379"]);
    bare.data_store("other", spec).await;
    // Told at most every 30 s, first when the operator began.
    let begun = Instant::now();
    while !is_closed("one").await {
        assert!(begun.elapsed() < TOLD, "one reaches the other pool's host");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = policies.get("one").await.unwrap();

    operator.kill();
    let _operator = bare.operator();
    bare.tenant("a", "two", json!({ "dataStore": "default" }))
        .await;
    bare.tenant_reason("a", "two", "ControlPlaneApplied", "Applied")
        .await;
    assert!(is_closed("two").await);
    let after = policies.get("one").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
}
