//! What kubelets ask to have signed, the addresses of nodes, and the answer.
//!
//! Of a request and of a node only what the answer depends on is read; nothing is kept.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, Request};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde_json::json;

use crate::conditions::cut;
use crate::error::Error;
use crate::observe::OwnedWatch;

/// The signer of kubelets' serving certificates.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The signer of kubelets' client certificates, with which they are nodes.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Nodes per page: 15 kB each as a rule.
const PAGE: u32 = 100;
/// Longest message of ours in a request.
const MESSAGE_LIMIT: usize = 1024;

/// A request that nobody has answered yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeletRequest {
    /// Name of the object.
    pub name: String,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// Who made it, as the API server knows them.
    pub username: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// The certificate's usages.
    pub usages: Vec<String>,
    /// PEM of the PKCS #10 request.
    pub request: Vec<u8>,
    /// Version that was read.
    pub resource_version: String,
    /// What was said of it; no answer.
    pub conditions: Vec<CertificateSigningRequestCondition>,
}

/// A node and the addresses in its status.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeAddresses {
    /// Name of the object.
    pub name: String,
    /// As its kubelet, or its cloud, wrote them.
    pub addresses: Vec<NodeAddress>,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Whether it may be signed.
    pub approved: bool,
    /// CamelCase reason.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentRequest {
    metadata: SentMeta,
    spec: SentSpec,
    #[serde(default)]
    status: SentStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentMeta {
    name: String,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentSpec {
    signer_name: String,
    request: ByteString,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    usages: Vec<String>,
}

#[derive(Default, Deserialize)]
struct SentStatus {
    #[serde(default)]
    conditions: Vec<CertificateSigningRequestCondition>,
}

/// The request `name` for `signer`; `None` when it is gone, answered, for another signer, or has a name that no kubelet gives and no
/// path can carry: API servers take any without `/` and `%`.
///
/// # Errors
/// [`Error::SigningRequest`].
pub async fn kubelet_request(
    client: &Client,
    name: &str,
    signer: &str,
) -> Result<Option<KubeletRequest>, Error> {
    let failed = |source| Error::SigningRequest {
        name: name.to_owned(),
        source: Box::new(source),
    };
    if !is_path_segment(name) {
        return Ok(None);
    }
    let url = CertificateSigningRequest::url_path(&(), None);
    let request = Request::new(url).get(name, &kube::api::GetParams::default());
    let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    let sent: SentRequest = match client.request(request).await {
        Ok(sent) => sent,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let answers = ["Approved", "Denied", "Failed"];
    let answered = |found: &CertificateSigningRequestCondition| answers.contains(&&*found.type_);
    let conditions = sent.status.conditions;
    if sent.spec.signer_name != signer || conditions.iter().any(answered) {
        return Ok(None);
    }
    Ok(Some(KubeletRequest {
        name: sent.metadata.name,
        created: sent.metadata.creation_timestamp.map(|time| time.0),
        username: sent.spec.username,
        groups: sent.spec.groups,
        usages: sent.spec.usages,
        request: sent.spec.request.0,
        resource_version: sent.metadata.resource_version.unwrap_or_default(),
        conditions,
    }))
}

impl OwnedWatch {
    /// The requests for signatures that a field selector selects. None is remembered.
    #[must_use]
    pub fn signing_requests(selected: &'static str) -> Self {
        Self {
            resources: vec![ApiResource::erase::<CertificateSigningRequest>(&())],
            selector: String::new(),
            fields: Some(selected),
            namespace: None,
            owner_label: None,
            written: Vec::new(),
            bookmarks: false,
            remembered: 0,
        }
    }
}

fn is_path_segment(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

#[derive(Deserialize)]
struct Nodes {
    metadata: ListMeta,
    items: Vec<SentNode>,
}

#[derive(Deserialize)]
struct SentNode {
    metadata: SentName,
    #[serde(default)]
    status: SentAddresses,
}

#[derive(Deserialize)]
struct SentName {
    name: String,
}

#[derive(Default, Deserialize)]
struct SentAddresses {
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

/// Every node, by name.
///
/// # Errors
/// [`Error::List`].
pub async fn node_addresses(client: &Client) -> Result<Vec<NodeAddresses>, Error> {
    let failed = |source| Error::List {
        kind: "Node".to_owned(),
        source: Box::new(source),
    };
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let request = Request::new(Node::url_path(&(), None)).list(&params);
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let page: Nodes = client.request(request).await.map_err(failed)?;
        found.extend(page.items.into_iter().map(|node| NodeAddresses {
            name: node.metadata.name,
            addresses: node.status.addresses,
        }));
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
        params.continue_token = next;
    }
}

/// Writes the answer, unless the request is not the one that was read any more.
///
/// # Errors
/// [`Error::SigningRequest`]; its category is `Conflict` or `NotFound` when another one has its name, or somebody
/// else has answered it.
pub async fn answer(
    client: &Client,
    request: &KubeletRequest,
    answer: Answer<'_>,
) -> Result<(), Error> {
    let kind = if answer.approved {
        "Approved"
    } else {
        "Denied"
    };
    let mut conditions = request.conditions.clone();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(answer.reason.to_owned()),
        message: Some(cut(answer.message, MESSAGE_LIMIT)),
        last_update_time: Some(Time(Timestamp::now())),
        ..CertificateSigningRequestCondition::default()
    });
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": request.resource_version },
        "status": { "conditions": conditions },
    }));
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    requests
        .patch_approval(&request.name, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .map_err(|source| Error::SigningRequest {
            name: request.name.clone(),
            source: Box::new(source),
        })
}
