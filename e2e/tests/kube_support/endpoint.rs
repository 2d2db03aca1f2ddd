//! What a test needs to know about a bare API server to reach it as a tenant's.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::ApiResource;
use serde_json::Value;
use stoker_kube::{OwnedWatch, TenantEndpoint};
use stoker_lab::bare::BareApiServer;

/// The label on everything that these tests make.
pub(crate) const OURS: &str = "e2e=kube";

/// The administrator's way to the API server.
pub(crate) fn endpoint(server: &BareApiServer) -> Result<TenantEndpoint> {
    let config: Value = serde_saphyr::from_str(server.kubeconfig())?;
    let pem = |path: &str| -> Result<String> {
        let text = config
            .pointer(path)
            .and_then(Value::as_str)
            .context("not in kubeconfig")?;
        Ok(String::from_utf8(STANDARD.decode(text)?)?)
    };
    let url = config
        .pointer("/clusters/0/cluster/server")
        .and_then(Value::as_str);
    let address = url
        .and_then(|url| url.strip_prefix("https://"))
        .context("no server")?;
    Ok(TenantEndpoint {
        address: address.parse()?,
        server_name: "localhost".to_owned(),
        certificate_authority: pem("/clusters/0/cluster/certificate-authority-data")?,
        client_certificate: pem("/users/0/user/client-certificate-data")?,
        client_key: pem("/users/0/user/client-key-data")?.into(),
    })
}

/// The eleven kinds that an operator watches inside a tenant.
pub(crate) fn eleven_kinds() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<ClusterRole>(&()),
        ApiResource::erase::<ClusterRoleBinding>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<Endpoints>(&()),
        ApiResource::erase::<EndpointSlice>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<DaemonSet>(&()),
    ]
}

/// A watch of everything that carries [`OURS`].
pub(crate) fn watch_ours(resources: Vec<ApiResource>) -> OwnedWatch {
    OwnedWatch {
        resources,
        selector: OURS.to_owned(),
        fields: None,
        namespace: None,
        owner_label: None,
        written: Vec::new(),
        bookmarks: false,
        remembered: 1000,
    }
}

/// How many connections of this process to that address are established.
pub(crate) fn connections_to(address: SocketAddr) -> Result<usize> {
    let mut mine = HashSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        if let Ok(target) = std::fs::read_link(entry.path()) {
            let target = target.to_string_lossy().into_owned();
            if let Some(inode) = target.strip_prefix("socket:[") {
                mine.insert(inode.trim_end_matches(']').to_owned());
            }
        }
    }
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let to_port = table.lines().skip(1).filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // remote address, state "established", inode
        fields.len() > 9
            && fields[2].ends_with(&port)
            && fields[3] == "01"
            && mine.contains(fields[9])
    });
    Ok(to_port.count())
}
