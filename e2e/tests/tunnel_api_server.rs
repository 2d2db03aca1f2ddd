//! A real kube-apiserver reaches a node that only the node's own network reaches, through the tunnel; and by it nothing of
//! management's, whatever its tenant tells it (cases T5, T6, S2).
//!
//! ```text
//!  management (this thread)                     node (the far end of a cable)
//!    kube-apiserver ─► near end ◄══ 10.77.0.0/24 ══ far end ─► kubelet 10.88.0.10, on no route from here
//!    canary 10.99.0.1, on no route from there                  canary 169.254.169.254
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "tunnel_support/ground.rs"]
mod ground;
#[path = "tunnel_support/kubelet.rs"]
mod kubelet;

use std::time::{Duration, Instant};

use ground::{Ground, on_a_thread};
use kube::Client;
use serde_json::{Value, json};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn get(client: &Client, path: &str) -> Result<String, String> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client
        .request_text(request)
        .await
        .map_err(|error| error.to_string())
}

async fn post(client: &Client, path: &str, object: &Value) -> Result<Value, String> {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(object).unwrap())
        .unwrap();
    client
        .request(request)
        .await
        .map_err(|error| error.to_string())
}

/// A node whose kubelet is said to be there.
async fn node(client: &Client, name: &str, address: &str) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    post(client, "/api/v1/nodes", &node).await.unwrap();
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": address }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": kubelet::PORT } },
    } });
    let request = http::Request::patch(format!("/api/v1/nodes/{name}/status"))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&status).unwrap())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
}

async fn until_answered(client: &Client, path: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        match get(client, path).await {
            Ok(answer) => return answer,
            Err(error) if Instant::now() > until => panic!("{path}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[test]
fn an_api_server_reaches_a_node_through_the_tunnel_alone() {
    on_a_thread(|| async {
        let ground = Ground::prepare(true).await;
        let client = ground.client().await;
        node(&client, "worker", ground::KUBELET).await;
        let path = "/api/v1/nodes/worker/proxy/hello";

        let refused = get(&client, path).await.unwrap_err();
        println!("without an agent: {refused}");
        assert!(
            refused.contains("no tunnel agent of this cluster is connected"),
            "{refused}"
        );

        let agent = ground.agent("worker", &[ground::KUBELET]);
        assert_eq!(until_answered(&client, path).await, "kubelet: GET /hello");

        // What kubectl logs asks for, 64 MB of it.
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "speaker" }, "spec": {
            "nodeName": "worker", "containers": [{ "name": "it", "image": "none" }],
        } });
        post(&client, "/api/v1/namespaces/default/pods", &pod)
            .await
            .unwrap();
        let begun = Instant::now();
        let log = get(&client, "/api/v1/namespaces/default/pods/speaker/log")
            .await
            .unwrap();
        let took = begun.elapsed();
        println!("{} MB of a log in {took:?}", log.len() >> 20);
        assert_eq!(log.len(), kubelet::LOG);
        let counted = |name: &str| ground.counted(name);
        assert_eq!(counted("links"), 1);
        assert!(counted("bytes_total{direction=\"from_nodes\"}") >= kubelet::LOG);
        assert!(counted("bytes_total{direction=\"to_nodes\"}") > 0);
        assert!(counted("streams_total") > 0);
        assert!(counted("failures_total{reason=\"NoAgent\"}") > 0);

        drop(agent);
        let until = Instant::now() + PATIENCE;
        while get(&client, path).await.is_ok() {
            assert!(Instant::now() < until, "it is answered without an agent");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// Ways in which a tenant can make its API server dial: nodes, proxies, webhooks of Services. Not webhooks by URL: those an
/// API server dials itself (egress `controlplane`), and the pods' `NetworkPolicy` keeps them from management.
async fn provoke(client: &Client) -> Vec<String> {
    let mut answers = Vec::new();
    for (name, address) in [("evil", ground::CANARY), ("metadata", ground::METADATA)] {
        node(client, name, address).await;
        for path in [
            format!("/api/v1/nodes/{name}/proxy/"),
            format!("/api/v1/nodes/https:{name}:{}/proxy/", kubelet::PORT),
        ] {
            answers.push(get(client, &path).await.unwrap_or_else(|error| error));
        }
        // A Service that is only another name for it.
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": {
            "type": "ExternalName", "externalName": address,
        } });
        post(client, "/api/v1/namespaces/default/services", &service)
            .await
            .unwrap();
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": name },
            "webhooks": [{
                "name": format!("{name}.example.com"),
                "clientConfig": { "service": { "namespace": "default", "name": name, "port": kubelet::PORT } },
            "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 2,
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
                }],
            }],
        });
        let webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        post(client, webhooks, &webhook).await.unwrap();
    }
    // Webhooks are known a moment after they were written.
    let until = Instant::now() + PATIENCE;
    let mut number = 0;
    loop {
        number += 1;
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("asked-{number}") } });
        if let Err(error) = post(client, "/api/v1/namespaces/default/configmaps", &map).await {
            answers.push(error);
            return answers;
        }
        assert!(Instant::now() < until, "no webhook was asked");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn whatever_a_tenant_has_its_api_server_dial_nothing_of_managements_hears_of_it() {
    on_a_thread(|| async {
        let ground = Ground::prepare(true).await;
        let client = ground.client().await;
        let _agent = ground.agent("worker", &[ground::KUBELET]);
        node(&client, "worker", ground::KUBELET).await;
        until_answered(&client, "/api/v1/nodes/worker/proxy/hello").await;
        for answer in provoke(&client).await {
            println!("{answer}");
        }
        assert_eq!(ground.canary.heard(), 0, "management was dialled");
        assert_eq!(
            ground.metadata.heard(),
            0,
            "the node's metadata service was dialled"
        );
    });
}

/// That the canary hears what is not kept from it.
#[test]
fn without_the_tunnel_management_hears_of_it() {
    on_a_thread(|| async {
        let ground = Ground::prepare(false).await;
        provoke(&ground.client().await).await;
        assert!(ground.canary.heard() > 0);
    });
}
