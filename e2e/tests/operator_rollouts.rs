//! Tenants whose control-plane pods change because the operator does: one at a time, each until it is ready again, also
//! when the operator is killed in the middle; what a person changes does not wait. Tenants' API servers have no node;
//! the test does what the Deployment controller would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and shows what the operator said"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the pool is not looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bare::{Bare, Operator, until};
use bare_pod::announce;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::labels::PAUSED;
use stoker_lab::bare::BareApiServer;
use tenant_server::PORT;

const TENANTS: [&str; 3] = ["a", "b", "c"];
/// Changes the issuer of every tenant's tokens, and so their pods.
const OTHER: &str = "--base-domain=clusters.example.com";
/// In which a second tenant would have had its pods replaced: a turn takes milliseconds.
const QUIET: Duration = Duration::from_secs(3);

/// As long as one that is down keeps its turn.
const DOWN: Duration = Duration::from_secs(30);

struct World {
    bare: Bare,
    _api_servers: Vec<BareApiServer>,
}

impl World {
    /// Three tenants that were made ready by an operator, which is gone. `second` is the second number of the first one's
    /// address, of this test alone.
    async fn start(second: u8, made_by: impl FnOnce(&Bare) -> Operator) -> Self {
        let bare = Box::pin(Bare::start()).await;
        bare.data_store("default", bare.data_store_spec()).await;
        let operator = made_by(&bare);
        let mut api_servers = Vec::new();
        for (namespace, second) in TENANTS.into_iter().zip(second..) {
            bare.namespace(namespace).await;
            bare.tenant(namespace, "one", json!({})).await;
            bare.tenant_reason(namespace, "one", "ControlPlaneApplied", "Applied")
                .await;
            let [_, _, high, low] = std::process::id().to_be_bytes();
            let address = IpAddr::V4(Ipv4Addr::new(127, second, high, low));
            let server = tenant_server::start(&bare, namespace, SocketAddr::new(address, PORT));
            api_servers.push(server.await);
            announce(&bare, namespace, "one-pod", address).await;
        }
        let world = Self {
            bare,
            _api_servers: api_servers,
        };
        for namespace in TENANTS {
            world.replace_pods(namespace).await;
            world
                .bare
                .tenant_reason(namespace, "one", "Ready", "Available")
                .await;
        }
        drop(operator);
        world
    }

    fn deployments(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.bare.client.clone(), namespace)
    }

    async fn deployment(&self, namespace: &str) -> Deployment {
        self.deployments(namespace).get("one").await.unwrap()
    }

    /// The pod template of every tenant.
    async fn templates(&self) -> BTreeMap<&'static str, Value> {
        let mut templates = BTreeMap::new();
        for namespace in TENANTS {
            let spec = self.deployment(namespace).await.spec.unwrap();
            templates.insert(namespace, serde_json::to_value(spec.template).unwrap());
        }
        templates
    }

    /// Whose template is another one than in `before`.
    async fn changed(&self, before: &BTreeMap<&'static str, Value>) -> Vec<&'static str> {
        let now = self.templates().await;
        let changed = now.into_iter().filter(|(name, now)| before[name] != *now);
        changed.map(|(name, _)| name).collect()
    }

    /// As the Deployment controller and the kubelet do: the pod of the latest template is there and ready.
    async fn replace_pods(&self, namespace: &str) {
        self.count_pods(namespace, 1).await;
    }

    /// The pod is of the latest template; it, or none, is ready.
    async fn count_pods(&self, namespace: &str, ready: i32) {
        let generation = self.deployment(namespace).await.metadata.generation;
        let status = json!({ "status": {
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
            "readyReplicas": ready, "availableReplicas": ready,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" }],
        }});
        let (params, status) = (PatchParams::default(), Patch::Merge(status));
        let deployments = self.deployments(namespace);
        deployments
            .patch_status("one", &params, &status)
            .await
            .unwrap();
    }

    /// An operator that has begun applies every tenant: what is applied just before the Deployment is back.
    async fn all_applied(&self) {
        for namespace in TENANTS {
            let policies: Api<NetworkPolicy> = Api::namespaced(self.bare.client.clone(), namespace);
            let (all, params) = (ListParams::default(), DeleteParams::default());
            policies.delete_collection(&params, &all).await.unwrap();
            until("the network policy is back", async || {
                !policies.list(&all).await.unwrap().items.is_empty()
            })
            .await;
        }
    }

    /// Every tenant's pods are replaced; then nobody is in the queue.
    async fn all_replaced(&self) {
        for namespace in TENANTS {
            self.replace_pods(namespace).await;
            until("the queue is empty", async || {
                self.turn(namespace).await.is_none()
            })
            .await;
        }
    }

    /// The turn that the tenant's condition names.
    async fn turn(&self, namespace: &str) -> Option<String> {
        let tenant = self.bare.tenants(namespace).get("one").await.unwrap();
        let conditions = tenant.status.unwrap_or_default().conditions;
        let mut conditions = conditions.into_iter();
        let found = conditions.find(|found| found.type_ == "RolloutTurn")?;
        Some(found.reason)
    }

    /// Waits until `count` tenants have another template than in `before`, and sees that no further one gets one.
    async fn exactly(
        &self,
        count: usize,
        before: &BTreeMap<&'static str, Value>,
    ) -> Vec<&'static str> {
        until(&format!("{count} tenants are rolled out"), async || {
            self.changed(before).await.len() >= count
        })
        .await;
        tokio::time::sleep(QUIET).await;
        let changed = self.changed(before).await;
        assert_eq!(changed.len(), count, "{changed:?}");
        changed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_changes_reaches_one_tenant_at_a_time() {
    let world = Box::pin(World::start(141, Bare::operator)).await;
    let before = world.templates().await;

    // The same operator once more replaces nothing.
    let same = world.bare.operator();
    world.all_applied().await;
    assert!(world.exactly(0, &before).await.is_empty());
    same.kill();

    // Another one replaces the pods of one, and the others wait and stay ready.
    let operator = world.bare.operator_with(&[OTHER]);
    let first = world.exactly(1, &before).await[0];
    let waiting: Vec<_> = TENANTS.into_iter().filter(|name| *name != first).collect();
    for namespace in &waiting {
        until("it says that it waits", async || {
            world.turn(namespace).await.as_deref() == Some("Waiting")
        })
        .await;
        world
            .bare
            .tenant_reason(namespace, "one", "Ready", "Available")
            .await;
    }
    until("the first says that it is its turn", async || {
        world.turn(first).await.as_deref() == Some("Rolling")
    })
    .await;

    // Killed in the middle, the next one knows whose turn it is.
    operator.kill();
    let operator = world.bare.operator_with(&[OTHER]);
    assert_eq!(world.exactly(1, &before).await, [first]);

    // A person who pauses it lets the next one go.
    let tenants = world.bare.tenants(first);
    let paused = |value: Value| json!({ "metadata": { "annotations": { PAUSED: value } } });
    let (params, pause) = (PatchParams::default(), Patch::Merge(paused(json!("yes"))));
    tenants.patch("one", &params, &pause).await.unwrap();
    let two = world.exactly(2, &before).await;
    let go_on = Patch::Merge(paused(Value::Null));
    tenants.patch("one", &params, &go_on).await.unwrap();

    // What a person changes does not wait.
    let hurried = TENANTS.into_iter().find(|name| !two.contains(name));
    let hurried = hurried.unwrap();
    let change = json!({ "spec": { "controlPlane": { "deployment": { "extraArgs": {
        "apiServer": ["--event-ttl=2h"],
    } } } } });
    let tenants = world.bare.tenants(hurried);
    let change = Patch::Merge(change);
    tenants.patch("one", &params, &change).await.unwrap();
    world.exactly(3, &before).await;
    world.all_replaced().await;
    operator.kill();

    // Where the pool was away for a moment no pod is ready, and yet not all are replaced at once.
    for namespace in TENANTS {
        world.count_pods(namespace, 0).await;
    }
    let before = world.templates().await;
    let _operator = world.bare.operator();
    let first = world.exactly(1, &before).await[0];
    // The one that is rolled out makes room, and one that was down makes room although it stays so.
    world.replace_pods(first).await;
    world.exactly(2, &before).await;
    tokio::time::sleep(DOWN).await;
    world.exactly(3, &before).await;
    world.all_replaced().await;
}

/// The operator of the commit before this one, and its `--help`.
fn previous_operator() -> Option<(PathBuf, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../hack/previous.sh");
    let built = Command::new(script).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let path = String::from_utf8(built.stdout).unwrap();
    if path.trim().is_empty() {
        println!("NOT TESTED: {said}");
        return None;
    }
    let path = PathBuf::from(path.trim());
    let help = Command::new(&path).arg("--help").output().unwrap();
    Some((path, String::from_utf8(help.stdout).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_from_the_commit_before_replaces_what_changed_one_tenant_at_a_time() {
    let Some((previous, help)) = previous_operator() else {
        return;
    };
    let made_by = |bare: &Bare| bare.operator_of(&previous, &[], |flag| help.contains(flag));
    let world = Box::pin(World::start(151, made_by)).await;
    let before = world.templates().await;

    let _operator = world.bare.operator();
    world.all_applied().await;
    tokio::time::sleep(QUIET).await;
    let changed = world.changed(&before).await;
    println!("pods of {} tenants change with this commit", changed.len());
    if !changed.is_empty() {
        for count in 1..=TENANTS.len() {
            for namespace in world.exactly(count, &before).await {
                world.replace_pods(namespace).await;
            }
        }
    }
    for namespace in TENANTS {
        until("nobody waits for a turn", async || {
            world.turn(namespace).await.is_none()
        })
        .await;
        world
            .bare
            .tenant_reason(namespace, "one", "Ready", "Available")
            .await;
    }
}
