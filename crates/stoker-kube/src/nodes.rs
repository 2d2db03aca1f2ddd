//! Nodes of a tenant that join: whether there is one of a name, and what it is given when it has come.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::error::Error;

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFound {
    /// Which of the nodes that have had its name.
    pub uid: String,
    /// Version that was read.
    pub resource_version: String,
    /// When it came.
    pub created: Option<Timestamp>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whole numbers of what pods can be given of it: devices, and pods.
    pub allocatable: BTreeMap<String, i64>,
}

/// The node `name`, if there is one.
///
/// # Errors
/// [`Error::Node`].
pub async fn node(client: &Client, name: &str) -> Result<Option<NodeFound>, Error> {
    let found = nodes(client).get_opt(name).await;
    let found = found.map_err(|source| failed(name, source))?;
    Ok(found.map(|node| NodeFound {
        uid: node.uid().unwrap_or_default(),
        resource_version: node.resource_version().unwrap_or_default(),
        created: node.creation_timestamp().map(|created| created.0),
        annotations: node.annotations().clone(),
        labels: node.labels().clone(),
        taints: node.spec.and_then(|spec| spec.taints).unwrap_or_default(),
        allocatable: whole(node.status.and_then(|status| status.allocatable)),
    }))
}

fn whole(quantities: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, i64> {
    let quantities = quantities.unwrap_or_default().into_iter();
    quantities
        .filter_map(|(name, Quantity(text))| Some((name, text.parse().ok()?)))
        .collect()
}

/// Gives the node that was `read` these labels beside its own, and exactly these taints.
///
/// # Errors
/// [`Error::Node`]; with the category `Conflict` when it was changed since it was read.
pub async fn equip_node(
    client: &Client,
    name: &str,
    read: &NodeFound,
    labels: &BTreeMap<String, String>,
    taints: &[Taint],
) -> Result<(), Error> {
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": read.resource_version, "uid": read.uid, "labels": labels },
        "spec": { "taints": taints },
    }));
    nodes(client)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .map_err(|source| failed(name, source))
}

/// Deletes the node that was `read`; that it is gone already is success.
///
/// # Errors
/// [`Error::Node`]; with the category `Conflict` when another one has its name.
pub async fn delete_node(client: &Client, name: &str, read: &NodeFound) -> Result<(), Error> {
    let only_this = Preconditions {
        uid: Some(read.uid.clone()),
        resource_version: Some(read.resource_version.clone()),
    };
    let params = DeleteParams::default().preconditions(only_this);
    match nodes(client).delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(failed(name, source)),
    }
}

fn nodes(client: &Client) -> Api<Node> {
    Api::all(client.clone())
}

fn failed(name: &str, source: kube::Error) -> Error {
    Error::Node {
        name: name.to_owned(),
        source: Box::new(source),
    }
}
