use serde_json::{Value, json};
use stoker_api::v1alpha1::DataStore;
use tokio::task::JoinSet;

use super::super::tests::operator;
use super::*;
use crate::run::Parts;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn slice(address: &str, version: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kubernetes", "namespace": "default", "resourceVersion": version },
        "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_found_first_is_told_at_once_and_changes_in_their_time() {
    let (parts, mut server) = operator(&["--management-cidrs=10.0.0.0/8"]);
    let Parts { ctx, watches, .. } = parts;
    let mut networks = ctx.management_networks.clone();
    let first = First::default();
    first.pools.store(true, Ordering::Release);
    let watching = watch_networks(watches.networks, ctx, first.clone());
    let _watching = JoinSet::from_iter([watching]);
    let begun = Instant::now();
    let mut told = async || {
        networks.changed().await.unwrap();
        let now = networks.borrow_and_update();
        let text: Vec<_> = now.closed.iter().map(ToString::to_string).collect();
        (begun.elapsed().as_secs(), text.join(" "))
    };
    server
        .list(SLICES, "EndpointSlice", &[slice("192.0.2.1", "5")])
        .await;
    assert_eq!(told().await, (0, "10.0.0.0/8 192.0.2.1/32".to_owned()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(first.networks.load(Ordering::Acquire));
    let change = |address: &str, version: &str| ("MODIFIED", slice(address, version));
    let changes = [change("192.0.2.2", "6"), change("192.0.2.3", "7")];
    server.watch(SLICES, &changes).await;
    let (at, text) = told().await;
    assert_eq!(text, "10.0.0.0/8 192.0.2.3/32", "one step, not two");
    assert!((102..105).contains(&at), "{at}");
    server.watch(SLICES, &[change("192.0.2.4", "8")]).await;
    let (later, text) = told().await;
    assert_eq!(text, "10.0.0.0/8 192.0.2.4/32");
    assert!((30..32).contains(&(later - at)), "{at} {later}");
}

fn pool(name: &str, endpoint: &str) -> DataStore {
    serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore",
        "metadata": { "name": name, "uid": name, "generation": 1 },
        "spec": { "driver": "etcd", "endpoints": [endpoint], "tlsConfig": {
            "certificateAuthority": { "certificate": { "content": "" } },
            "clientCertificate": { "certificate": { "content": "" }, "privateKey": { "content": "" } },
        } },
    }))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_hosts_of_all_pools_are_told_to_all() {
    let (parts, mut server) = operator(&["--management-cidrs=10.0.0.0/8"]);
    let Parts { ctx, watches, .. } = parts;
    let mut cache = watches.data_stores;
    let mut has = |stores: &[(&str, &str)]| {
        cache.apply_watcher_event(&Event::Init);
        for (name, endpoint) in stores {
            cache.apply_watcher_event(&Event::InitApply(pool(name, endpoint)));
        }
        cache.apply_watcher_event(&Event::InitDone);
    };
    has(&[("a", "198.51.100.1:2379"), ("b", "[2001:db8::2]:2379")]);
    let mut networks = ctx.management_networks.clone();
    let first = First::default();
    let watching = watch_networks(watches.networks, ctx.clone(), first.clone());
    let _watching = JoinSet::from_iter([watching]);
    server.list(SLICES, "EndpointSlice", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let is_told = first.networks.load(Ordering::Acquire);
    assert!(!is_told, "the pools are not looked at yet");
    first.pools.store(true, Ordering::Release);
    let mut told = async || {
        networks.changed().await.unwrap();
        let now = networks.borrow_and_update();
        let text: Vec<_> = now.closed.iter().map(ToString::to_string).collect();
        text.join(" ")
    };
    let both = "10.0.0.0/8 198.51.100.1/32 2001:db8::2/128";
    assert_eq!(told().await, both);
    has(&[("a", "198.51.100.1:2379"), ("c", "db.example:2379")]);
    ctx.networks_doubted.notify_one();
    assert_eq!(told().await, "10.0.0.0/8 198.51.100.1/32");
}

#[tokio::test(start_paused = true)]
async fn changes_wait_for_each_other_but_not_for_ever() {
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    let mut pace = Pace::default();
    assert_eq!(pace.due, None);
    pace.changed(begun);
    pace.changed(after(1));
    assert_eq!(pace.due, Some(after(2)), "the first change counts");
    pace.looked(after(2), true);
    assert_eq!(pace.due, None);
    pace.changed(after(3));
    assert_eq!(pace.due, Some(after(32)));
    pace.looked(after(32), false);
    pace.changed(after(40));
    assert_eq!(pace.due, Some(after(42)), "nothing was told");
    pace.look_at(after(100));
    assert_eq!(pace.due, Some(after(42)));
}
