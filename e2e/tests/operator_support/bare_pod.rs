//! A control-plane pod without a node: an object, by which the operator finds an API server that runs elsewhere.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::bare::Bare;

/// A ready pod of the tenant `one` in a namespace, with this address.
pub(crate) async fn announce(bare: &Bare, namespace: &str, name: &str, address: IpAddr) {
    let pod = json!({
        "metadata": { "name": name, "labels": {
            "stoker.dev/name": "one", "app.kubernetes.io/managed-by": "stoker",
        }},
        "spec": { "containers": [{ "name": "kube-apiserver", "image": "none" }] },
    });
    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), namespace);
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    }});
    let (params, status) = (PatchParams::default(), Patch::Merge(status));
    pods.patch_status(name, &params, &status).await.unwrap();
}
