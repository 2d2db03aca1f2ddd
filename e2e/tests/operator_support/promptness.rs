//! What an event, and no timer, brings about: `status.usedBy` follows tenants that come and go in a few writes, and a
//! finalizer that somebody takes away is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::bare::{Bare, until};

/// Tenants made, and deleted, at once.
const CROWD: usize = 10;

/// Counts what is written to the `DataStore` from now on.
async fn count_writes(bare: &Bare) -> Arc<AtomicUsize> {
    let (writes, stores) = (Arc::new(AtomicUsize::new(0)), bare.data_stores());
    let now = stores.get("default").await.unwrap().resource_version();
    let (counted, now) = (writes.clone(), now.unwrap());
    tokio::spawn(async move {
        let params = WatchParams::default().fields("metadata.name=default");
        let mut events = stores.watch(&params, &now).await.unwrap().boxed();
        while let Some(event) = events.next().await {
            if matches!(event, Ok(WatchEvent::Modified(_))) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    writes
}

async fn used_by(bare: &Bare) -> Vec<String> {
    let store = bare.data_stores().get("default").await.unwrap();
    store
        .status
        .map(|status| status.used_by)
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_a_store_is_written_at_once_and_for_a_crowd_in_few_writes() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    until("the DataStore is ready", async || {
        let store = bare.data_stores().get("default").await.unwrap();
        store.status.is_some_and(|status| status.ready)
    })
    .await;
    let writes = count_writes(&bare).await;
    let names: Vec<String> = (0..CROWD).map(|index| format!("t-{index}")).collect();
    let begun = Instant::now();
    for name in &names {
        bare.tenant("a", name, json!({})).await;
    }
    let all: Vec<String> = names.iter().map(|name| format!("a/{name}")).collect();
    until("all are in usedBy", async || used_by(&bare).await == all).await;
    let came = (begun.elapsed(), writes.swap(0, Ordering::Relaxed));
    for name in &names {
        bare.tenant_reason("a", name, "ControlPlaneApplied", "Applied")
            .await;
    }
    let begun = Instant::now();
    for name in &names {
        let tenants = bare.tenants("a");
        tenants
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    until("none is in usedBy", async || {
        used_by(&bare).await.is_empty()
    })
    .await;
    let went = (begun.elapsed(), writes.load(Ordering::Relaxed));
    println!("{CROWD} tenants came: {came:?}; went: {went:?} (time, writes)");
    assert!(came.1 < CROWD && went.1 < CROWD, "one write for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_that_somebody_takes_away_is_back() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    let (tenants, stores) = (bare.tenants("a"), bare.data_stores());
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let params = PatchParams::default();
    for _ in 0..3 {
        let bared = tenants.patch("one", &params, &none).await.unwrap();
        assert!(bared.finalizers().is_empty());
        let bared = stores.patch("default", &params, &none).await.unwrap();
        assert!(bared.finalizers().is_empty());
        let begun = Instant::now();
        until("both hold again", async || {
            let tenant = tenants.get("one").await.unwrap();
            let store = stores.get("default").await.unwrap();
            !tenant.finalizers().is_empty() && !store.finalizers().is_empty()
        })
        .await;
        println!("finalizers back after {:?}", begun.elapsed());
    }
}
