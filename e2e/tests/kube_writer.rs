//! `stoker-kube` against a real API server: applies, watches, status, the lease.

#![expect(clippy::unwrap_used, reason = "what these functions do is test")]

#[path = "kube_support/connection.rs"]
mod connection;
#[path = "kube_support/endpoint.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod endpoint;
#[path = "kube_support/leadership.rs"]
mod leadership;
#[path = "kube_support/reporting.rs"]
mod reporting;
#[path = "support/stalling_proxy.rs"]
mod stalling_proxy;
#[path = "kube_support/writing.rs"]
mod writing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use endpoint::endpoint;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Client;
use serde_json::json;
use stoker_kube::{Desired, tenant_client};
use stoker_lab::bare::BareApiServer;
use tokio::sync::OnceCell;

const NAMESPACE: &str = "default";
const MANAGER: &str = "e2e-kube";
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One API server for all tests of this file.
async fn server() -> &'static BareApiServer {
    static SERVER: OnceCell<BareApiServer> = OnceCell::const_new();
    SERVER
        .get_or_init(async || BareApiServer::start().await.unwrap())
        .await
}

/// A client of our own kind and the number of requests that it has sent.
async fn counted() -> Result<(Client, Arc<AtomicUsize>)> {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let counter = Arc::new(move |_: &str, _: &str, exchange: stoker_kube::Exchange| {
        if exchange == stoker_kube::Exchange::Sent {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok((tenant_client(&endpoint(server().await)?, counter)?, sent))
}

/// Objects of four kinds with and without a generation, named `name`.
fn objects(name: &str) -> Vec<Desired> {
    let meta =
        json!({"name": name, "namespace": NAMESPACE, "labels": {"e2e": "kube", "test": name}});
    let config: ConfigMap =
        serde_json::from_value(json!({"metadata": meta, "data": {"a": "b"}})).unwrap();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": meta, "stringData": {"key": "x"}})).unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": meta,
        "spec": {"selector": {"a": "b"}, "ports": [{"name": "https", "port": 443}]},
    }))
    .unwrap();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}]},
            },
        },
    }))
    .unwrap();
    vec![
        Desired::of(&config).unwrap().answered_whole(),
        Desired::of(&secret).unwrap().answered_whole(),
        Desired::of(&service).unwrap().answered_whole(),
        Desired::of(&deployment).unwrap().answered_whole(),
    ]
}
