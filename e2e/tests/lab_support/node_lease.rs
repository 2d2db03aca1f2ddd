//! The lease by which a node says that it is alive.

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};

/// When the kubelet of `node` renewed it last.
pub(crate) async fn renewed(client: &Client, node: &str) -> Result<Timestamp> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let renewed = leases
        .get(node)
        .await?
        .spec
        .and_then(|spec| spec.renew_time);
    Ok(renewed.context("a lease that nobody holds")?.0)
}
