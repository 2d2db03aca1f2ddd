use serde_json::{Value, json};
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
    let listed = Listed::default();
    let watching = watch_networks(watches.networks, ctx, listed.clone());
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
    assert!(listed.load(Ordering::Acquire));
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
