//! A control-plane pod that cannot run is told of on its tenant, once and not with every try.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::bare::Bare;

/// As the kubelet has it of a container that waits.
async fn waits(pods: &Api<Pod>, reason: &str, message: &str) {
    let status = json!({ "status": { "phase": "Pending", "containerStatuses": [{
        "name": "kube-apiserver", "image": "registry/a:v1", "imageID": "", "ready": false,
        "restartCount": 0, "state": { "waiting": { "reason": reason, "message": message } },
    }]}});
    let params = PatchParams::default();
    let patch = Patch::Merge(status);
    pods.patch_status("one-0", &params, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_told_once() {
    let bare = Bare::start().await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", json!({})).await;
    bare.tenant_reason("a", "one", "Ready", "PodsStarting")
        .await;
    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
    let pod: Value = json!({
        "metadata": { "name": "one-0", "labels": {
            "stoker.dev/name": "one", "app.kubernetes.io/managed-by": "stoker",
        }},
        "spec": { "containers": [{ "name": "kube-apiserver", "image": "registry/a:v1" }] },
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    waits(&pods, "ErrImagePull", "not found, try 1").await;
    let message = bare
        .tenant_reason("a", "one", "Ready", "ImageNotPulled")
        .await;
    for part in [
        "kube-apiserver",
        "one-0",
        "registry/a:v1",
        "ImagePullBackOff",
        "not found",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let tenants = bare.tenants("a");
    let told = tenants.get("one").await.unwrap();
    for round in 2..6 {
        let again = format!("Back-off pulling image: ErrImagePull: not found, try {round}");
        waits(&pods, "ImagePullBackOff", &again).await;
        waits(&pods, "ErrImagePull", &format!("not found, try {round}")).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let later = tenants.get("one").await.unwrap();
    assert_eq!(told.resource_version(), later.resource_version());
    waits(&pods, "ErrImagePull", "unauthorized").await;
    let begun = std::time::Instant::now();
    crate::bare::until("the other cause is told", async || {
        let status = tenants.get("one").await.unwrap().status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        conditions.any(|found| found.type_ == "Ready" && found.message.contains("unauthorized"))
    })
    .await;
    println!("another cause told after {:?}", begun.elapsed());
}
