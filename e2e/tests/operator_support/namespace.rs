//! Deleting a tenant's whole namespace, with the controllers of a real cluster; this test is scheduler and kubelet.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoker_lab::bare::BareControllerManager;

use crate::bare::{Bare, until};

const CONTROLLERS: [&str; 4] = [
    "deployment-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "replicaset-controller",
];
/// Time that a control-plane pod takes to end when it is given all it asks for.
const DRAIN: Duration = Duration::from_secs(12);
/// The namespace controller looks first after 5 s, and again after 38 s if a control-plane pod is there.
const LIMIT: Duration = Duration::from_secs(20);

/// Binds the tenant's pod to a node, and returns its name.
async fn bind(pods: &Api<Pod>) -> String {
    let first = async || {
        let all = pods.list(&ListParams::default()).await.unwrap();
        all.items.first().map(ResourceExt::name_any)
    };
    until("there is a pod", async || first().await.is_some()).await;
    let name = first().await.unwrap();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "node" },
    });
    let params = PostParams::default();
    let bound = pods.create_subresource::<_, Value>("binding", &name, &params, &binding);
    bound.await.unwrap();
    name
}

/// Ends the pod after its drain, or sooner when it is given less time.
async fn end(pods: Api<Pod>, name: String) {
    let mut asked = None;
    loop {
        let pod = pods.get(&name).await.unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            let asked = asked.get_or_insert_with(Instant::now);
            let grace = pod.metadata.deletion_grace_period_seconds;
            let grace = u64::try_from(grace.unwrap_or_default()).unwrap();
            if asked.elapsed() >= DRAIN.min(Duration::from_secs(grace)) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let now = DeleteParams::default().grace_period(0);
    pods.delete(&name, &now).await.unwrap();
}

/// When the tenant was told to go, when it was gone, and when the namespace was.
async fn follow(bare: &Bare, begun: Instant) -> [Option<Duration>; 3] {
    let namespaces: Api<Namespace> = Api::all(bare.client.clone());
    let tenants = bare.tenants("a");
    let mut seen = [None; 3];
    while seen[2].is_none() && begun.elapsed() < Duration::from_secs(90) {
        let tenant = tenants.get_opt("one").await.unwrap();
        let leaving = tenant
            .as_ref()
            .is_none_or(|tenant| tenant.metadata.deletion_timestamp.is_some());
        let gone = namespaces.get_opt("a").await.unwrap().is_none();
        for (seen, is_so) in seen.iter_mut().zip([leaving, tenant.is_none(), gone]) {
            if is_so {
                seen.get_or_insert(begun.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_as_soon_as_its_controller_looks() {
    let bare = Bare::start().await;
    let manager = BareControllerManager::start(&bare.api_server, &CONTROLLERS)
        .await
        .unwrap();
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({})).await;
    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
    let pod = bind(&pods).await;
    let kubelet = tokio::spawn(end(pods, pod));

    let (begun, params) = (Instant::now(), DeleteParams::default());
    let namespaces: Api<Namespace> = Api::all(bare.client.clone());
    namespaces.delete("a", &params).await.unwrap();
    let [told, gone, ended] = follow(&bare, begun).await;
    println!("tenant told to go: {told:?}, gone: {gone:?}; namespace gone: {ended:?}");
    let log = manager.log().unwrap();
    for line in log.lines().filter(|line| line.contains("namespace=\"a\"")) {
        println!("{line}");
    }
    assert!(ended.is_some_and(|ended| ended < LIMIT));
    kubelet.await.unwrap();
    assert_eq!(bare.pool_users().await, [""; 0]);
    assert_eq!(bare.pool_keys().await, [""; 0]);
}
