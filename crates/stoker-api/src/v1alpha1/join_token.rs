//! The `JoinToken` kind: lets machines into a tenant's cluster as nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{DNS_LABEL, DNS_NAME, LABEL_VALUE, QUALIFIED_NAME};

/// Labels that a kubelet sets itself.
const OF_KUBELETS: &str = "['kubernetes.io/hostname', 'kubernetes.io/os', 'kubernetes.io/arch']";
/// An address or a network, roughly; CEL's own functions need the IP library of Kubernetes 1.30.
const NETWORK: &str = "^[0-9a-fA-F.:]+/[0-9]{1,3}$";

/// Lets machines into a tenant's cluster as nodes, a counted number of them and for a while. Deleting it revokes it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "JoinToken",
    plural = "jointokens",
    shortname = "jt",
    category = "stoker",
    namespaced,
    doc = "Lets machines into a tenant's cluster as nodes, a counted number of them and for a while. Deleting it revokes it.",
    status = "JoinTokenStatus",
    derive = "PartialEq",
    validation = Rule::new(format!("size(self.metadata.name) <= 63 && self.metadata.name.matches('{DNS_NAME}')"))
        .message("metadata.name must have at most 63 characters: what it made is found by it as a label"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantControlPlane"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Uses", type_ = "integer", json_path = ".spec.uses"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expirationTime"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes[*].name", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message(
    "a JoinToken does not change once it is made, since it may have been handed out: make another one"
))]
pub struct JoinTokenSpec {
    /// Name of the `TenantControlPlane`, in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_LABEL}')"))
        .message("tenantControlPlane must be the name of a TenantControlPlane"))]
    pub tenant_control_plane: String,
    /// Seconds from the making of this object to the end of the token: an hour by default, a week at most. Nodes that
    /// have joined by then stay.
    #[serde(default = "default_expiration")]
    #[schemars(range(min = 60, max = 604_800))]
    pub expiration_seconds: i64,
    /// How many machines may join by it.
    #[serde(default = "default_uses")]
    #[schemars(range(min = 1, max = 500))]
    pub uses: i64,
    /// Labels for nodes that join by it, set by the operator: also those that a node may not give itself, under
    /// `node-restriction.kubernetes.io/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 32,
        "additionalProperties" = { "type": "string", "maxLength": 63 }
    ))]
    #[x_kube(
        validation = Rule::new(format!(
            "self.all(k, size(k) <= 317 && k.matches('{QUALIFIED_NAME}') && self[k].matches('{LABEL_VALUE}'))"
        )).message("labels: names and values are those of labels"),
        validation = Rule::new(format!("!self.exists(k, k in {OF_KUBELETS})"))
            .message("labels: hostname, os and arch are the kubelet's to set")
    )]
    pub labels: BTreeMap<String, String>,
    /// Taints for nodes that join by it, set by the operator before the first pod can land.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new(
        "self.all(one, self.exists_one(other, other.key == one.key && other.effect == one.effect))"
    ).message("taints: one of each key and effect"))]
    pub taints: Vec<NodeTaint>,
    /// Devices that nodes which join by it have: names of extended resources and how many, such as `nvidia.com/gpu: 8`. Until
    /// as many can be given to pods, the node has the taint `<name>=pending:NoSchedule`, which device plugins tolerate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 8,
        "additionalProperties" = { "type": "integer", "format": "int64", "minimum": 1, "maximum": 1024 }
    ))]
    #[x_kube(validation = Rule::new(format!(
        "self.all(k, size(k) <= 317 && k.contains('/') && k.matches('{QUALIFIED_NAME}') && !k.startsWith('kubernetes.io/'))"
    )).message("devices: the name of an extended resource has a domain, such as nvidia.com/gpu"))]
    pub devices: BTreeMap<String, i64>,
    /// Names of the nodes that may join by it; left out, any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(format!("self.all(name, name.matches('{DNS_NAME}'))"))
        .message("nodeNames: a node's name is a DNS name in lower case"))]
    pub node_names: Vec<String>,
    /// Networks, in CIDR notation, that hold the addresses of nodes that join by it; left out, any. A kubelet gets a
    /// serving certificate only for addresses in them, one at least, and for no name but its node's, as long as this object is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 49)))]
    #[x_kube(validation = Rule::new(format!("self.all(network, network.matches('{NETWORK}'))"))
        .message("nodeNetworks: networks are written in CIDR notation"))]
    pub node_networks: Vec<String>,
}

/// An hour: a token that leaks is of use to nobody soon.
fn default_expiration() -> i64 {
    3600
}

fn default_uses() -> i64 {
    1
}

/// A taint of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeTaint {
    /// Name.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new(format!("self.matches('{QUALIFIED_NAME}')"))
        .message("taints: a key is a name as labels have"))]
    pub key: String,
    /// Value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(format!("self.matches('{LABEL_VALUE}')"))
        .message("taints: a value is one as labels have"))]
    pub value: String,
    /// What it does to pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// What a taint does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// New pods only where no other node takes them.
    PreferNoSchedule,
    /// No pods at all.
    NoExecute,
}

impl NodeTaint {
    /// As a Node has it.
    #[must_use]
    pub fn taint(&self) -> Taint {
        let effect = match self.effect {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        };
        Taint {
            key: self.key.clone(),
            value: (!self.value.is_empty()).then(|| self.value.clone()),
            effect: effect.to_owned(),
            time_added: None,
        }
    }
}

/// What became of a token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// The public half of the bootstrap token: who asks with it is `system:bootstrap:<id>` in the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The Secret beside this object that holds what to type on a machine: `token`, `join` and `kubeadm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// When the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,
    /// How many machines were let in.
    #[serde(default)]
    pub used: i64,
    /// The machines that were let in, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<JoinedNode>,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A machine that was let in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JoinedNode {
    /// Name of the node.
    pub name: String,
    /// `sha256:` of the public key that it joined with.
    pub key: String,
    /// When it was let in.
    pub admission_time: Time,
    /// When its Node was there, with the labels and taints that it was to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_time: Option<Time>,
    /// Its devices, once as many as the token says could be given to pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<JoinedDevices>,
}

/// What a node had when its devices were complete.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JoinedDevices {
    /// How many of each could be given to pods.
    pub allocatable: BTreeMap<String, i64>,
    /// Model of its GPUs, where all are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Memory of each, MiB.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<i64>,
    /// How many GPUs the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// How many of them the driver answers for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<i64>,
}

impl JoinToken {
    /// When the token ends; `None` while the API server has not said when it was made.
    #[must_use]
    pub fn expiration(&self) -> Option<k8s_openapi::jiff::Timestamp> {
        let made = self.metadata.creation_timestamp.as_ref()?.0;
        let lasts = k8s_openapi::jiff::SignedDuration::from_secs(self.spec.expiration_seconds);
        made.checked_add(lasts).ok()
    }
}
