//! What a gateway needs of its management cluster, and what it says of itself.

use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[path = "manifests.rs"]
mod manifests;

/// Who a gateway is.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:stoker-system:stoker-gateway";

/// Gives it its rights: those of `manifests/gateway.yaml`.
pub(crate) async fn create_roles(client: &Client) {
    let manifest = include_str!("../../../manifests/gateway.yaml");
    manifests::create(client, manifest, &["rbac."]).await;
}

/// Writes what the `EndpointSlice` controller writes of a tenant with one API server.
pub(crate) async fn write_slice(
    slices: &Api<EndpointSlice>,
    name: &str,
    tenant: &str,
    address: SocketAddr,
    ready: bool,
) {
    let endpoint = json!({
        "addresses": [address.ip().to_string()],
        "conditions": { "ready": ready, "serving": ready },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "metadata": { "name": name, "labels": {
            "app.kubernetes.io/managed-by": "stoker", "stoker.dev/name": tenant,
            "kubernetes.io/service-name": tenant,
        }},
        "endpoints": [endpoint],
        "ports": [{ "name": "kube-apiserver", "port": address.port(), "protocol": "TCP" }],
    });
    let params = PatchParams::apply("test").force();
    let patch = Patch::Apply(slice);
    slices.patch(name, &params, &patch).await.unwrap();
}

/// The answer at the port of its health and metrics.
pub(crate) async fn get(health: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", health)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// Whether it is ready; `None` while it does not answer.
pub(crate) async fn is_ready(health: u16) -> Option<bool> {
    let answer = get(health, "/readyz").await;
    answer.map(|text| text.starts_with("HTTP/1.1 200"))
}

/// The value of a series.
pub(crate) async fn metric(health: u16, series: &str) -> u64 {
    let text = get(health, "/metrics").await.unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}
