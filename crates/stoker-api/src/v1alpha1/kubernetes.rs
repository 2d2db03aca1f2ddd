//! `spec.kubernetes`: the release and the kubelets' settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Kubernetes release of the control plane and the settings of its kubelets.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Kubernetes {
    /// Release of the control plane, `vMAJOR.MINOR.PATCH`; minors 1.33 to 1.36.
    pub version: String,
    /// Settings of the kubelets that join.
    pub kubelet: Kubelet,
}

/// Settings of the kubelets that join.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Kubelet {
    /// RFC 6902 patches applied to the `kubelet-config` of the tenant before it is published.
    #[serde(
        default,
        rename = "configurationJSONPatches",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub configuration_json_patches: Vec<JsonPatch>,
    /// Order in which the API server tries a node's addresses
    /// (`kube-apiserver --kubelet-preferred-address-types`).
    /// Default: `InternalIP`, `ExternalIP`, `Hostname`.
    #[serde(default = "default_preferred_address_types")]
    #[schemars(length(min = 1))]
    pub preferred_address_types: Vec<NodeAddressType>,
    /// cgroup driver of the kubelets (`KubeletConfiguration.cgroupDriver`); left out, kubelets
    /// decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<Cgroupfs>,
}

fn default_preferred_address_types() -> Vec<NodeAddressType> {
    vec![
        NodeAddressType::InternalIP,
        NodeAddressType::ExternalIP,
        NodeAddressType::Hostname,
    ]
}

/// One RFC 6902 operation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct JsonPatch {
    /// What to do.
    pub op: JsonPatchOperation,
    /// JSON pointer (RFC 6901) of the place to change.
    pub path: String,
    /// JSON pointer of the source, for `move` and `copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value, for `add`, `replace` and `test`: any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_json")]
    pub value: Option<serde_json::Value>,
}

fn any_json(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// The operations of RFC 6902.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the operations are RFC 6902's own")]
pub enum JsonPatchOperation {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

/// Kinds of node addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are core/v1 NodeAddressType's own")]
pub enum NodeAddressType {
    Hostname,
    InternalIP,
    ExternalIP,
    InternalDNS,
    ExternalDNS,
}

/// cgroup drivers of a kubelet.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub enum Cgroupfs {
    Systemd,
    Cgroupfs,
}
