//! What `stoker-control-plane` builds, as its golden files have it, given to an API server.

use serde_json::{Value, json};
use stoker_lab::bare::BareApiServer;
use stoker_lab::versions::KubernetesVersion;

use crate::{create, documents};

/// The smallest tenant, and one that asks for every option.
const GOLDEN: [&str; 2] = ["cluster-ip", "options"];
const NAMESPACE: &str = "prod";

/// Makes what the golden files refer to, in a namespace that enforces the restricted profile.
async fn surroundings(client: &kube::Client) {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        },
    });
    create(client, "/api/v1/namespaces", &namespace)
        .await
        .unwrap();
    for name in ["default", "control-planes"] {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        create(client, &path, &account).await.unwrap();
    }
    let runtime = json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": { "name": "gvisor" },
        "handler": "runsc",
    });
    create(client, "/apis/node.k8s.io/v1/runtimeclasses", &runtime)
        .await
        .unwrap();
}

/// Strict as `kubectl` is: a field that the API server does not know is an error.
pub(crate) async fn every_option_is_taken_and_keeps_to_the_restricted_profile(
    version: KubernetesVersion,
) {
    for golden in GOLDEN {
        let server = BareApiServer::start_version(version).await.unwrap();
        let client = server.client().await.unwrap();
        surroundings(&client).await;
        let path = format!("crates/stoker-control-plane/tests/golden/{golden}.yaml");
        for document in documents(&path) {
            let collection = match document["kind"].as_str().unwrap() {
                "Service" => format!("/api/v1/namespaces/{NAMESPACE}/services"),
                "Deployment" => format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"),
                "NetworkPolicy" => {
                    format!("/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies")
                }
                _ => continue,
            };
            let asked = on_one_family(document);
            let kind = &asked["kind"];
            let taken = create(&client, &collection, &asked)
                .await
                .unwrap_or_else(|status| panic!("{golden} {kind}: {}", status.message));
            if *kind == "Deployment" {
                let mut pod = taken["spec"]["template"].clone();
                pod["apiVersion"] = json!("v1");
                pod["kind"] = json!("Pod");
                pod["metadata"]["name"] = json!("control-plane");
                let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
                create(&client, &pods, &pod)
                    .await
                    .unwrap_or_else(|status| panic!("{golden} pod: {}", status.message));
            }
        }
    }
}

/// The bare API server has IPv4 Services alone.
fn on_one_family(mut document: Value) -> Value {
    if document["kind"] == "Service" && !document["spec"]["ipFamilies"].is_null() {
        document["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    document
}
