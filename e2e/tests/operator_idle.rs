//! Tenants that sleep when nobody asks them anything, with an API server and a warden that run.

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
#[path = "operator_support/guarded.rs"]
#[expect(dead_code, reason = "no write is frozen here")]
mod guarded;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use std::time::{Duration, Instant};

use bare::Bare;
use guarded::Guarded;
use hyper::upgrade::Upgraded;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use stoker_api::v1alpha1::{HibernationReason, HibernationState, HibernationStatus};
use stoker_lab::versions::default_kubernetes;
use tokio::net::TcpListener;

/// People keep it awake, while nodes and pods ask all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sleeps_when_no_person_asked_for_a_while() {
    let bare = Box::pin(Bare::start()).await;
    bare.namespace("a").await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    let idle = json!({ "hibernation": { "idleAfter": "1m" } });
    let tenant = Guarded::start_with(&bare, default_kubernetes(), 171, idle).await;
    let begun = Instant::now();
    let node = tenant.user("system:node:n1", "system:nodes").await;
    let pod = tenant.with_token(&pod_token(&tenant).await);
    let machines = tokio::spawn(async move {
        loop {
            for client in [&node, &pod] {
                // Refused or not, they have asked.
                let _ = asked(client).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let person = tenant.admin().await;
    tokio::time::sleep(Duration::from_secs(50).saturating_sub(begun.elapsed())).await;
    let last = Timestamp::now();
    asked(&person).await.unwrap();
    tokio::time::sleep(Duration::from_secs(45)).await;
    let found = hibernation(&bare).await;
    assert_eq!(found.state, HibernationState::Awake, "a person was there");
    bare.tenant_reason("a", "one", "Sleeping", "Idle").await;
    let asleep = hibernation(&bare).await;
    assert_eq!(asleep.state, HibernationState::Asleep);
    let idle = asleep.since.0.as_second() - last.as_second();
    println!("asleep {idle} s after a person last asked");
    assert_eq!(asleep.reason, HibernationReason::Idle);
    assert!((59..75).contains(&idle), "{idle}");
    let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), "a");
    let deployment = deployments.get("one").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(0));
    machines.abort();
}

/// One question, and a shell that is open since then.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_shell_keeps_a_tenant_awake() {
    let bare = Box::pin(Bare::start()).await;
    bare.namespace("a").await;
    bare.data_store("default", bare.data_store_spec()).await;
    let _operator = bare.operator();
    let idle = json!({ "hibernation": { "idleAfter": "1m" } });
    let tenant = Guarded::start_with(&bare, default_kubernetes(), 172, idle).await;
    let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let person = tenant.admin().await;
    pod_on(&person, kubelet.local_addr().unwrap().port()).await;
    let shell = exec(&person).await;
    // It is silent, as a shell before which nobody sits.
    let kubelet = kubelet.accept().await.unwrap();
    tokio::time::sleep(Duration::from_secs(85)).await;
    let found = hibernation(&bare).await;
    assert_eq!(found.state, HibernationState::Awake, "a shell is open");
    drop((shell, kubelet));
}

/// A pod on a node whose kubelet is at this port of loopback.
async fn pod_on(admin: &Client, port: u16) {
    let params = PostParams::default();
    let nodes: Api<Node> = Api::all(admin.clone());
    let node = json!({ "metadata": { "name": "n1" }, "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
    }});
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&params, &node).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    let account = json!({ "metadata": { "name": "agent" } });
    let account = serde_json::from_value(account).unwrap();
    accounts.create(&params, &account).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(admin.clone());
    let pod = json!({ "metadata": { "name": "agent" }, "spec": {
        "nodeName": "n1", "serviceAccountName": "agent",
        "containers": [{ "name": "agent", "image": "none" }],
    }});
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&params, &pod).await.unwrap();
}

/// A shell as kubectl asks for it.
async fn exec(client: &Client) -> Upgraded {
    let path = "/api/v1/namespaces/default/pods/agent/exec?command=sh&stdin=true&stdout=true";
    let request = http::Request::get(path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        .header("Sec-WebSocket-Key", "c3Rva2VyLXN0b2tlci1zdA==")
        .body(kube::client::Body::empty())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    hyper::upgrade::on(answer).await.unwrap()
}

async fn asked(client: &Client) -> Result<(), kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.list(&ListParams::default()).await.map(drop)
}

/// A token as a pod has it, of the service account `default/default`.
async fn pod_token(tenant: &Guarded) -> String {
    let admin = tenant.admin().await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    let params = PostParams::default();
    let account = json!({ "metadata": { "name": "agent" } });
    accounts
        .create(&params, &serde_json::from_value(account).unwrap())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(admin);
    let pod = json!({ "metadata": { "name": "agent" }, "spec": {
        "serviceAccountName": "agent", "containers": [{ "name": "agent", "image": "none" }],
    }});
    let pod = pods
        .create(&params, &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    let request = json!({ "spec": { "audiences": [], "expirationSeconds": 3600, "boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": pod.metadata.uid,
    }}});
    let request = serde_json::from_value(request).unwrap();
    let made = accounts
        .create_token_request("agent", &params, &request)
        .await;
    made.unwrap().status.unwrap().token
}

async fn hibernation(bare: &Bare) -> HibernationStatus {
    let tenant = bare.tenants("a").get("one").await.unwrap();
    tenant.status.unwrap().hibernation.unwrap()
}
