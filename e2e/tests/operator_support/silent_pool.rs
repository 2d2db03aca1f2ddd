//! A pool that accepts connections and answers nothing, beside a healthy one, whose tenants must not notice.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use stoker_lab::bare::BareEtcd;
use stoker_lab::versions::ETCD;

use crate::bare::{Bare, until};
use crate::stalling_proxy::{Network, StallingProxy};
use crate::store_reason;

/// Tenants of the silent pool: many times more than may work on the management side at the same time.
const CROWD: usize = 150;
/// Of the crowd, those that live when the pool falls silent, and are then deleted.
const LIVING: usize = 20;
/// For a birth, a change or a deletion beside it, and that as many times as long as it took alone: machines are shared.
/// One call to a silent pool takes 5 s.
const UNDISTURBED: (Duration, u32) = (Duration::from_secs(3), 15);

async fn delete(bare: &Bare, namespace: &str, name: &str) {
    let tenants = bare.tenants(namespace);
    let params = DeleteParams::default();
    tenants.delete(name, &params).await.unwrap();
}

/// How long a tenant takes to be born, changed and deleted.
async fn life(bare: &Bare, name: &str) -> [Duration; 3] {
    let (tenants, begun) = (bare.tenants("healthy"), Instant::now());
    bare.tenant("healthy", name, json!({ "dataStore": "default" }))
        .await;
    bare.tenant_reason("healthy", name, "ControlPlaneApplied", "Applied")
        .await;
    let born = begun.elapsed();
    let begun = Instant::now();
    let change = json!({ "spec": { "networkProfile": { "certSANs": ["b.example.com"] } } });
    let change = Patch::Merge(change);
    let params = PatchParams::default();
    let changed = tenants.patch(name, &params, &change).await.unwrap();
    until("the change is applied", async || {
        let tenant = tenants.get(name).await.unwrap();
        let status = tenant.status.unwrap_or_default();
        Some(status.observed_generation) == changed.metadata.generation
    })
    .await;
    let changed = begun.elapsed();
    let begun = Instant::now();
    delete(bare, "healthy", name).await;
    until("the tenant is gone", async || {
        tenants.get_opt(name).await.unwrap().is_none()
    })
    .await;
    [born, changed, begun.elapsed()]
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_beside_a_pool_that_falls_silent_do_not_notice() {
    let bare = Bare::start().await;
    let second = BareEtcd::start_secured(ETCD).await.unwrap();
    let endpoint = second.endpoint();
    let endpoint = endpoint.trim_start_matches("https://").parse().unwrap();
    let network = StallingProxy::before(endpoint).await.unwrap();
    let mut spec = Bare::spec_of(&second);
    spec["endpoints"] = json!([network.address.to_string()]);
    bare.data_store("default", bare.data_store_spec()).await;
    bare.data_store("silent", spec).await;
    let _operator = bare.operator();
    for namespace in ["healthy", "crowd"] {
        bare.namespace(namespace).await;
    }
    for store in ["default", "silent"] {
        store_reason(&bare, store, "Ready", "Available").await;
    }
    let alone = life(&bare, "alone").await;
    println!("alone: {alone:?}");
    let limit = UNDISTURBED.0 + alone.into_iter().max().unwrap() * UNDISTURBED.1;
    let names: Vec<String> = (0..CROWD).map(|index| format!("t-{index}")).collect();
    let place = || json!({ "dataStore": "silent" });
    for name in &names[..LIVING] {
        bare.tenant("crowd", name, place()).await;
    }
    for name in &names[..LIVING] {
        bare.tenant_reason("crowd", name, "ControlPlaneApplied", "Applied")
            .await;
    }

    network.become_(Network::Silent);
    let begun = Instant::now();
    for name in &names[LIVING..] {
        bare.tenant("crowd", name, place()).await;
    }
    for name in &names[..LIVING] {
        delete(&bare, "crowd", name).await;
    }
    println!(
        "{CROWD} tenants asked of a silent pool in {:?}",
        begun.elapsed()
    );
    let said = async {
        store_reason(&bare, "silent", "Ready", "Unreachable").await;
        begun.elapsed()
    };
    let lives = async {
        for name in ["first", "second", "third"] {
            let took = life(&bare, name).await;
            println!("{name} beside it: {took:?}");
            assert!(took.iter().all(|took| *took < limit), "{took:?}");
        }
    };
    let (said, ()) = tokio::join!(said, lives);
    println!("the silent pool is called unreachable after {said:?}");
    bare.tenant_reason("crowd", &names[LIVING], "DataStoreReady", "Unreachable")
        .await;

    network.become_(Network::Up);
    store_reason(&bare, "silent", "Ready", "Available").await;
    for name in &names[LIVING..] {
        bare.tenant_reason("crowd", name, "ControlPlaneApplied", "Applied")
            .await;
    }
    until("the deleted ones are gone", async || {
        let tenants = bare.tenants("crowd");
        let gone = async |name: &String| tenants.get_opt(name).await.unwrap().is_none();
        for name in &names[..LIVING] {
            if !gone(name).await {
                return false;
            }
        }
        true
    })
    .await;
}
