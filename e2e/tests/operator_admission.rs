//! The validating webhook on a real API server: what would break a tenant's pod is refused at `kubectl apply` with the
//! API server's own reason, and nothing waits for a webhook that is away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "no pool is looked into here")]
mod bare;
#[path = "operator_support/webhook.rs"]
mod webhook;

use std::time::Instant;

use bare::until;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use webhook::{Guarded, impossible, renewed_soon, tenant};

/// A pod with a container `log` that is as given.
fn with_container(container: &Value) -> Value {
    let mut whole = json!({ "name": "log", "image": "log" });
    json_patch::merge(&mut whole, container);
    json!({ "controlPlane": { "deployment": { "additionalContainers": [whole] } } })
}

fn deployment(change: &Value) -> Value {
    json!({ "controlPlane": { "deployment": change } })
}

/// Node port of a Service that is there.
const TAKEN: u16 = 30123;

fn nowhere() -> Value {
    let term = json!({ "topologyKey": "not a key", "labelSelector": {} });
    deployment(&json!({ "affinity": { "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term],
    } } }))
}

/// What an API server would not run, what it says of that, and where in the spec.
fn broken() -> Vec<(&'static str, Value, &'static str)> {
    let mount = json!({ "name": "scratch", "mountPath": "/scratch" });
    let scratch = json!({ "name": "scratch", "emptyDir": {} });
    vec![
        (
            "a path mounted twice",
            deployment(&json!({
                "additionalVolumes": [scratch],
                "additionalVolumeMounts": { "scheduler": [mount, mount] },
            })),
            "spec.controlPlane.deployment.additionalVolumeMounts.scheduler: duplicate entries",
        ),
        (
            "a resource that there is not",
            with_container(&json!({ "resources": { "requests": { "gold": "1" } } })),
            "spec.controlPlane.deployment.additionalContainers[0].resources.requests[gold]",
        ),
        (
            "a topology key that is none",
            nowhere(),
            "spec.controlPlane.deployment.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"not a key\"",
        ),
        (
            "an affinity to nothing",
            deployment(&json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "a", "operator": "In" }] },
                ] },
            } } })),
            "spec.controlPlane.deployment.affinity.nodeAffinity",
        ),
        (
            "a toleration of everything by name",
            impossible(),
            "spec.controlPlane.deployment.tolerations[0]",
        ),
        (
            "an init container with a probe",
            deployment(&json!({ "additionalInitContainers": [{
                "name": "before", "image": "before",
                "livenessProbe": { "tcpSocket": { "port": 1 } },
            }] })),
            "spec.controlPlane.deployment.additionalInitContainers[0].livenessProbe",
        ),
        (
            "a node port of another",
            json!({
                "controlPlane": { "service": { "serviceType": "NodePort" } },
                "networkProfile": { "address": "192.0.2.7", "port": TAKEN },
            }),
            "spec.networkProfile.port: Invalid value: 30123: provided port is already allocated",
        ),
        (
            "a patch that fits nowhere",
            json!({ "kubernetes": { "kubelet": { "configurationJSONPatches": [
                { "op": "remove", "path": "/nothing/here" },
            ] } } }),
            "configurationJSONPatches",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_break_the_pod_is_refused_with_the_reason() {
    let guarded = Box::pin(Guarded::start()).await;
    guarded
        .bare
        .data_store("default", guarded.bare.data_store_spec())
        .await;
    guarded.node_port(TAKEN).await;
    let mut wrong = Vec::new();
    for (what, change, says) in broken() {
        let (taken, said) = guarded.apply(&tenant("one", &change), &["--dry-run=server"]);
        println!("{what}: {said}");
        if taken || !said.contains(says) {
            wrong.push(format!("{what}: taken {taken}, should say {says}:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let all = json!({ "controlPlane": { "deployment": {
        "additionalVolumes": [{ "name": "scratch", "emptyDir": {} }],
        "additionalVolumeMounts": { "apiServer": [{ "name": "scratch", "mountPath": "/scratch" }] },
        "additionalContainers": [{ "name": "log", "image": "log" }],
        "resources": { "apiServer": { "requests": { "cpu": "1" }, "limits": { "cpu": 2 } } },
    } } });
    let begun = Instant::now();
    let (taken, said) = guarded.apply(&tenant("one", &all), &[]);
    assert!(taken && !said.contains("Warning"), "{said}");
    println!("a good spec with kubectl: {:?}", begun.elapsed());
    guarded
        .bare
        .tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    // Of what is there, too, and whoever owns what.
    let (taken, said) = guarded.apply(&tenant("one", &impossible()), &[]);
    assert!(!taken && said.contains("tolerations[0]"), "{said}");
    guarded.figures();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_come_later_is_a_warning() {
    let guarded = Box::pin(Guarded::start()).await;
    let later = json!({
        "dataStore": "missing",
        "controlPlane": {
            "deployment": { "runtimeClassName": "missing", "serviceAccountName": "missing" },
            "gateway": { "hostname": "api.example.com", "parentRefs": [{ "name": "public" }] },
        },
    });
    let (taken, said) = guarded.apply(&tenant("one", &later), &["--dry-run=server"]);
    assert!(taken, "{said}");
    for kind in ["DataStore", "RuntimeClass", "ServiceAccount", "Gateway"] {
        assert!(
            said.contains(&format!("{kind} ")),
            "no warning of {kind}: {said}"
        );
    }
    let (taken, said) = guarded.apply(&tenant("one", &json!({})), &["--dry-run=server"]);
    assert!(taken && said.contains("there is no DataStore"), "{said}");

    // A quota that is used up.
    guarded.quota("a").await;
    let (taken, said) = guarded.apply(&tenant("one", &json!({})), &["--dry-run=server"]);
    assert!(taken && said.contains("exceeded quota"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_webhook_that_is_away_and_what_it_let_in_stays_editable() {
    let mut guarded = Box::pin(Guarded::start()).await;
    drop(guarded.operators.pop());
    let begun = Instant::now();
    let (taken, said) = guarded.apply(&tenant("one", &impossible()), &[]);
    println!("without a webhook: {:?}", begun.elapsed());
    assert!(taken, "{said}");

    guarded.operate().await;
    // What has nothing to do with the fault is let in, with a warning.
    let mut other = impossible();
    json_patch::merge(
        &mut other,
        &json!({ "deletion": { "dataRetentionSeconds": 60 } }),
    );
    let (taken, said) = guarded.apply(&tenant("one", &other), &[]);
    assert!(taken, "{said}");
    json_patch::merge(
        &mut other,
        &deployment(&json!({ "nodeSelector": { "a": "b" } })),
    );
    let (taken, said) = guarded.apply(&tenant("one", &other), &[]);
    assert!(taken && said.contains("Warning"), "{said}");
    // Another fault is not.
    json_patch::merge(&mut other, &nowhere());
    let (taken, said) = guarded.apply(&tenant("one", &other), &[]);
    assert!(!taken && said.contains("not a key"), "{said}");
    // Mended, and deleted.
    let (taken, said) = guarded.apply(&tenant("one", &json!({})), &[]);
    assert!(taken, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_and_the_certificates_come_back() {
    let guarded = Box::pin(Guarded::start()).await;
    let bundle = guarded.bundle().await.unwrap();
    for _ in 0..3 {
        let remove = json!([{ "op": "remove", "path": "/webhooks/0/clientConfig/caBundle" }]);
        guarded.patch_configuration(remove).await;
        until("the bundle is back", async || {
            guarded.bundle().await.as_ref() == Some(&bundle)
        })
        .await;
    }
    guarded.refuses().await;
    // A Secret that is gone or damaged gives new certificates, trusted as the old ones were.
    guarded.delete_secret().await;
    until("another authority is trusted", async || {
        guarded.bundle().await.is_some_and(|found| found != bundle)
    })
    .await;
    guarded.refuses().await;
    let bundle = guarded.bundle().await.unwrap();
    let garbage = Patch::Merge(json!({ "data": { "ca.key": "Z2FyYmFnZQ==" } }));
    let secrets = guarded.bare.secrets("stoker-system");
    let params = PatchParams::default();
    secrets
        .patch(webhook::SECRET, &params, &garbage)
        .await
        .unwrap();
    until("another authority is trusted", async || {
        guarded.bundle().await.is_some_and(|found| found != bundle)
    })
    .await;
    guarded.refuses().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_requests_without_one_being_missed() {
    // The replica that stands by answers, the one that leads keeps the certificates.
    let guarded = Box::pin(Guarded::start_with_standby()).await;
    let secrets = guarded.bare.secrets("stoker-system");
    let params = PatchParams::default();
    let soon = Patch::Merge(json!({ "data": renewed_soon() }));
    secrets
        .patch(webhook::SECRET, &params, &soon)
        .await
        .unwrap();
    until("two authorities are trusted", async || {
        let bundle = guarded.bundle().await.unwrap_or_default();
        bundle.matches("BEGIN CERTIFICATE").count() == 2
    })
    .await;
    guarded.refuses().await;
    let before = guarded.bundle().await.unwrap();
    let (mut asked, mut missed) = (0, 0);
    let mut turned = None;
    let begun = Instant::now();
    // Until the old authority signs no more, and some seconds more.
    while turned.is_none_or(|turned: Instant| turned.elapsed().as_secs() < 3) {
        assert!(
            begun.elapsed().as_secs() < 60,
            "the authority is not replaced"
        );
        let answers = (0..8).map(|_| guarded.is_refused());
        for refused in futures::future::join_all(answers).await {
            asked += 1;
            missed += usize::from(!refused);
        }
        let secret = secrets.get(webhook::SECRET).await.unwrap();
        if secret.data.unwrap().contains_key("previous-ca.crt") {
            turned.get_or_insert_with(Instant::now);
        }
    }
    println!("{asked} requests in {:?}, {missed} missed", begun.elapsed());
    assert_eq!(missed, 0, "of {asked}");
    let after = guarded.bundle().await.unwrap();
    assert_eq!(after.matches("BEGIN CERTIFICATE").count(), 2);
    let first = |bundle: &str| bundle.split("-----END").next().unwrap().to_owned();
    assert_ne!(
        first(&before),
        first(&after),
        "the new authority comes first"
    );
}
