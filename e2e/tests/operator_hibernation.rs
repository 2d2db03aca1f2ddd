//! Tenants that sleep and wake: by hand, by schedule, and by a connection through a real gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the pool is not looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/front_door.rs"]
mod front_door;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bare::{Bare, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use front_door::{DOMAIN, Gateway, Node, requests};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{
    HibernationReason, HibernationState, HibernationStatus, TenantControlPlaneStatus, VersionState,
};
use stoker_lab::credentials;
use stoker_lab::steps::Steps;
use stoker_lab::upstream::Upstream;
use stoker_lab::versions::default_kubernetes;
use stoker_pki::Authority;
use tokio::process::Command;

async fn world() -> Bare {
    let bare = Bare::start().await;
    bare.namespace("a").await;
    bare.data_store("default", bare.data_store_spec()).await;
    bare
}

async fn status(bare: &Bare) -> TenantControlPlaneStatus {
    let tenant = bare.tenants("a").get("one").await.unwrap();
    tenant.status.unwrap_or_default()
}

async fn hibernation(bare: &Bare) -> Option<HibernationStatus> {
    status(bare).await.hibernation
}

/// Waits until the tenant is in this state, and returns it.
async fn is(bare: &Bare, state: HibernationState) -> HibernationStatus {
    until(&format!("the tenant is {state:?}"), async || {
        hibernation(bare)
            .await
            .is_some_and(|found| found.state == state)
    })
    .await;
    hibernation(bare).await.unwrap()
}

async fn change(bare: &Bare, hibernation: Value) {
    let patch = Patch::Merge(json!({ "spec": { "hibernation": hibernation } }));
    let tenants = bare.tenants("a");
    tenants
        .patch("one", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Pods wanted, and how often that or anything else about them was changed.
async fn deployed(bare: &Bare) -> (i32, i64) {
    let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), "a");
    let deployment = deployments.get("one").await.unwrap();
    (
        deployment.spec.unwrap().replicas.unwrap(),
        deployment.metadata.generation.unwrap(),
    )
}

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// Later than a time to the second that is now.
async fn a_second_later() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sleeps_and_wakes_by_hand_and_the_operator_may_end_between() {
    let bare = Box::pin(world()).await;
    let operator = bare.operator();
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    assert!(hibernation(&bare).await.is_none());
    a_second_later().await;
    change(&bare, json!({ "sleepAt": now() })).await;
    let asleep = is(&bare, HibernationState::Asleep).await;
    assert_eq!(asleep.reason, HibernationReason::ByHand);
    bare.tenant_reason("a", "one", "Ready", "Sleeping").await;
    bare.tenant_reason("a", "one", "Sleeping", "ByHand").await;
    assert_eq!(deployed(&bare).await.0, 0);
    let tenant = bare.tenants("a").get("one").await.unwrap();
    assert_eq!(tenant.spec.control_plane.deployment.replicas, 1);
    let word = tenant.status.unwrap().kubernetes_resources.version.status;
    assert_eq!(word, VersionState::Sleeping);

    // Another process goes on from what is recorded, and writes nothing.
    operator.kill();
    let before = bare.tenants("a").get("one").await.unwrap();
    let _operator = bare.operator();
    until("the new process has looked", async || {
        bare.log().matches("caches filled").count() == 2
    })
    .await;
    a_second_later().await;
    let after = bare.tenants("a").get("one").await.unwrap();
    assert_eq!(
        before.metadata.resource_version,
        after.metadata.resource_version
    );

    change(&bare, json!({ "wakeAt": now() })).await;
    let awake = is(&bare, HibernationState::Awake).await;
    assert_eq!(awake.reason, HibernationReason::ByHand);
    until("pods are wanted", async || deployed(&bare).await.0 == 1).await;
    bare.tenant_reason("a", "one", "Ready", "Waking").await;

    // Asleep once more; without `hibernation` it is awake.
    a_second_later().await;
    change(&bare, json!({ "sleepAt": now() })).await;
    is(&bare, HibernationState::Asleep).await;
    change(&bare, Value::Null).await;
    until("pods are wanted", async || deployed(&bare).await.0 == 1).await;
    until("nothing is said of sleep", async || {
        hibernation(&bare).await.is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sleeps_by_schedule_and_a_schedule_that_is_none_changes_nothing() {
    let bare = Box::pin(world()).await;
    let _operator = bare.operator();
    let every_minute = json!({ "sleep": "* * * * *", "timeZone": "Europe/Berlin" });
    bare.tenant(
        "a",
        "one",
        json!({ "hibernation": { "schedule": every_minute } }),
    )
    .await;
    bare.tenant_reason("a", "one", "Sleeping", "Awake").await;
    let until_then = is(&bare, HibernationState::Awake).await.until.unwrap().0;
    assert_eq!(until_then.as_second() % 60, 0);
    change(&bare, json!({ "schedule": { "timeZone": "Europe/Bonn" } })).await;
    let why = bare.tenant_reason("a", "one", "Valid", "InvalidSpec").await;
    assert!(
        why.contains("spec.hibernation.schedule.timeZone: \"Europe/Bonn\""),
        "{why}"
    );
    change(
        &bare,
        json!({ "schedule": { "timeZone": "Europe/Berlin" } }),
    )
    .await;
    bare.tenant_reason("a", "one", "Valid", "Accepted").await;
    let left = until_then.as_second() - Timestamp::now().as_second();
    tokio::time::sleep(Duration::from_secs(left.max(0).unsigned_abs())).await;
    let asleep = is(&bare, HibernationState::Asleep).await;
    assert_eq!(asleep.reason, HibernationReason::Schedule);
    assert!(asleep.since.0 >= until_then && asleep.since.0.as_second() % 60 == 0);
    let late = Timestamp::now().as_second() - asleep.since.0.as_second();
    println!("asleep {late} s after its time");
    assert_eq!(deployed(&bare).await.0, 0);
}

/// kubectl with the tenant's admin kubeconfig, at the gateway.
struct Person {
    kubectl: PathBuf,
    kubeconfig: tempfile::NamedTempFile,
}

impl Person {
    /// By the name that wakes, as the kubeconfig has it, or by the one that nodes use.
    async fn new(bare: &Bare, gateway: &Gateway, wakes: bool) -> Self {
        let version = default_kubernetes();
        let upstream = Upstream::open(Steps::new()).unwrap();
        let secret = bare.secrets("a").get("one-admin-kubeconfig").await.unwrap();
        let text = String::from_utf8(secret.data.unwrap()["admin.conf"].0.clone()).unwrap();
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        let id = status(bare).await.storage.unwrap().setup.schema;
        let cluster = &mut config["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], format!("https://{id}.{DOMAIN}:6443"));
        assert_eq!(cluster["tls-server-name"], format!("wake-{id}.{DOMAIN}"));
        cluster["server"] = json!(format!("https://127.0.0.1:{}", gateway.port));
        if !wakes {
            cluster["tls-server-name"] = json!(format!("{id}.{DOMAIN}"));
        }
        // Each API server here begins with nothing, without the binding of the administrators too.
        let authority = bare.secrets("a").get("one-ca").await.unwrap().data.unwrap();
        let pem = |entry: &str| String::from_utf8(authority[entry].0.clone()).unwrap();
        let authority = Authority::from_pem(&pem("ca.crt"), &pem("ca.key")).unwrap();
        let leaf = credentials::client(&authority, "person", Some("system:masters")).unwrap();
        config["users"][0]["user"] = json!({
            "client-certificate-data": STANDARD.encode(&leaf.certificate),
            "client-key-data": STANDARD.encode(leaf.key.as_pem()),
        });
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        Self {
            kubectl: upstream.kubernetes(version).await.unwrap().join("kubectl"),
            kubeconfig,
        }
    }

    /// `kubectl get namespaces`: whether it succeeded, and what it said.
    async fn asks(&self, cache: &Path) -> (bool, String) {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig.path())
            .arg("--cache-dir")
            .arg(cache)
            .args(["get", "namespaces", "-o", "name"])
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_wakes_and_the_first_request_succeeds() {
    let bare = Arc::new(Box::pin(world()).await);
    let operator = bare.operator_with(&[&format!("--base-domain={DOMAIN}")]);
    bare.tenant("a", "one", json!({ "hibernation": {} })).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    let node = Node::start(bare.clone());
    bare.tenant_reason("a", "one", "Ready", "Available").await;
    let gateway = Gateway::start(&bare).await;
    let person = Person::new(&bare, &gateway, true).await;
    let machine = Person::new(&bare, &gateway, false).await;
    let cache = tempfile::tempdir().unwrap();
    let (done, said) = person.asks(cache.path()).await;
    assert!(done, "{said}");
    assert_eq!(gateway.metric("stoker_gateway_wakes_total").await, 0);

    // Nodes, which dial by the other name, wake nobody.
    sleep(&bare).await;
    let heartbeat = tokio::time::timeout(Duration::from_secs(4), machine.asks(cache.path()));
    assert!(heartbeat.await.is_err(), "it is held");
    assert_eq!(
        hibernation(&bare).await.unwrap().state,
        HibernationState::Asleep
    );
    assert_eq!(
        (
            requests(&bare).await,
            gateway.metric("stoker_gateway_wakes_total").await
        ),
        (0, 0)
    );

    // A storm wakes once.
    let (_, changes) = deployed(&bare).await;
    let begun = Instant::now();
    let storm = futures::future::join_all((0..20).map(|_| person.asks(cache.path())));
    for (done, said) in storm.await {
        assert!(done && said.contains("namespace/default"), "{said}");
    }
    println!(
        "twenty people served after {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    let awake = hibernation(&bare).await.unwrap();
    assert_eq!(
        (awake.state, awake.reason),
        (HibernationState::Awake, HibernationReason::Connection)
    );
    assert_eq!(gateway.metric("stoker_gateway_wakes_total").await, 1);
    assert_eq!(deployed(&bare).await.1, changes + 1);
    assert_eq!(node.started.load(Ordering::Relaxed), 2);
    until("the request is answered", async || {
        requests(&bare).await == 0
    })
    .await;
    bare.tenant_reason("a", "one", "Sleeping", "Awake").await;
    told(&bare, &["Sleeping", "Waking", "Available"]).await;

    // Slower than a client's patience with a handshake, and the operator away when it is asked.
    sleep(&bare).await;
    operator.kill();
    node.slowness.store(9000, Ordering::Relaxed);
    let begun = Instant::now();
    let asked = tokio::spawn(async move { person.asks(cache.path()).await });
    until("somebody asks", async || requests(&bare).await == 1).await;
    let _operator = bare.operator_with(&[&format!("--base-domain={DOMAIN}")]);
    let (done, said) = asked.await.unwrap();
    println!("served after {:.1} s", begun.elapsed().as_secs_f64());
    assert!(done && begun.elapsed() > Duration::from_secs(10), "{said}");
    assert!(
        gateway
            .metric("stoker_gateway_refused_total{reason=\"Waking\"}")
            .await
            > 0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_nobody_and_of_tenants_that_may_not_be_woken_do_not_stay() {
    let bare = Box::pin(world()).await;
    let _operator = bare.operator();
    bare.tenant(
        "a",
        "one",
        json!({ "hibernation": { "wakeOnConnection": false } }),
    )
    .await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    a_second_later().await;
    change(&bare, json!({ "sleepAt": now() })).await;
    let asleep = is(&bare, HibernationState::Asleep).await;
    assert!(!asleep.wakes_on_connection);
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(bare.client.clone(), "stoker-system");
    let data = json!({ "data": { "a.one": now(), "a.two": now(), "nobody": now() } });
    let (params, patch) = (PatchParams::default(), Patch::Merge(data));
    maps.patch(stoker_api::wake::REQUESTS, &params, &patch)
        .await
        .unwrap();
    until("all are taken out", async || requests(&bare).await == 0).await;
    assert_eq!(is(&bare, HibernationState::Asleep).await, asleep);
    assert_eq!(deployed(&bare).await.0, 0);
}

/// Puts it to sleep, until no API server runs.
async fn sleep(bare: &Bare) {
    a_second_later().await;
    change(bare, json!({ "sleepAt": now() })).await;
    assert!(is(bare, HibernationState::Asleep).await.wakes_on_connection);
    until("no pod is left", async || {
        let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    })
    .await;
}

/// Waits until there are events of the tenant with these reasons.
async fn told(bare: &Bare, reasons: &[&str]) {
    let events: Api<Event> = Api::namespaced(bare.client.clone(), "a");
    until(&format!("events tell {reasons:?}"), async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let said = |reason: &&str| {
            let mut events = events.iter();
            events.any(|event| event.reason.as_deref() == Some(*reason))
        };
        reasons.iter().all(said)
    })
    .await;
}
