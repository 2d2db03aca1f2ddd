//! The `KubeconfigGenerator` kind: kubeconfigs for people and programs, one per selected tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::Selector;

/// Ends of names that a tenant's own Secrets have: with such a generator, `<tenant>-<generator>` would be one of them.
pub const RESERVED_NAMES: [&str; 12] = [
    "ca",
    "front-proxy-ca-certificate",
    "sa-certificate",
    "api-server-certificate",
    "api-server-kubelet-client-certificate",
    "front-proxy-client-certificate",
    "admin-kubeconfig",
    "controller-manager-kubeconfig",
    "scheduler-kubeconfig",
    "datastore-config",
    "datastore-certificate",
    "encryption-config",
];

/// The group that passes by authorization: what is in a certificate of it cannot be taken away.
pub const MASTERS: &str = "system:masters";

/// Kubeconfigs for people and programs: one Secret `<tenant>-<generator>` beside every selected tenant.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "KubeconfigGenerator",
    plural = "kubeconfiggenerators",
    shortname = "kc",
    category = "stoker",
    doc = "Kubeconfigs for people and programs: one Secret `<tenant>-<generator>` beside every selected tenant.",
    status = "KubeconfigGeneratorStatus",
    derive = "PartialEq",
    validation = Rule::new(format!(
        "size(self.metadata.name) <= 63 && !{}.exists(end, self.metadata.name == end || self.metadata.name.endsWith('-' + end))",
        reserved()
    )).message(
        "metadata.name must have at most 63 characters and not end like a tenant's own Secret (ca, admin-kubeconfig, …): \
         the Secrets made are named <tenant>-<generator>"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableResources"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.resources"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct KubeconfigGeneratorSpec {
    /// Selects namespaces by their labels; left out, all.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub namespace_selector: Selector,
    /// Selects tenants by their labels; left out, all in the selected namespaces.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub tenant_control_plane_selector: Selector,
    /// Who the user is inside the tenant: the common name of the client certificate.
    pub user: CompoundValue,
    /// The user's groups inside the tenant: organizations of the client certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(format!(
        "!self.exists(group, has(group.stringValue) && group.stringValue == '{MASTERS}')"
    )).message(
        "groups: system:masters passes by authorization and could not be taken away again; take \
         kubeadm:cluster-admins, which is bound to cluster-admin"
    ))]
    pub groups: Vec<CompoundValue>,
    /// Entry of `<tenant>-admin-kubeconfig` from which the API server's address is taken: `admin.svc` is the Service inside
    /// the management cluster, `admin.conf` what nodes and people dial. The `super-admin.*` of the same address mean the same.
    #[serde(default = "default_endpoint_from")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(
        "self in ['admin.svc', 'admin.conf', 'super-admin.svc', 'super-admin.conf']"
    ).message("controlPlaneEndpointFrom must be admin.svc, admin.conf, super-admin.svc or super-admin.conf"))]
    pub control_plane_endpoint_from: String,
    /// Seconds from the issue of a client certificate to its end. It is issued anew when a third of them is left. A
    /// certificate cannot be called back: this is how long a copied kubeconfig works at most after access should have ended.
    #[serde(default = "default_expiration")]
    #[schemars(range(min = 600, max = 31_536_000))]
    pub expiration_seconds: i64,
}

/// CEL: the list of [`RESERVED_NAMES`].
fn reserved() -> String {
    let quoted: Vec<_> = RESERVED_NAMES
        .iter()
        .map(|end| format!("'{end}'"))
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn default_endpoint_from() -> String {
    "admin.svc".to_owned()
}

/// A day.
fn default_expiration() -> i64 {
    24 * 3600
}

/// A value in place, or one of the tenant's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.stringValue) != has(self.fromDefinition)").message(
    "Either stringValue or fromDefinition must be set, but not both."
))]
pub struct CompoundValue {
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub string_value: Option<String>,
    /// Where in the `TenantControlPlane` a text stands, in dot notation: `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub from_definition: Option<String>,
}

/// What the operator last made.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeconfigGeneratorStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Number of selected tenants.
    #[serde(default)]
    pub resources: i64,
    /// Number of those whose kubeconfig is there.
    #[serde(default)]
    pub available_resources: i64,
    /// Selected tenants without a kubeconfig, and why; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<KubeconfigGeneratorError>,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A tenant without a kubeconfig.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct KubeconfigGeneratorError {
    /// The tenant, `namespace/name`.
    pub resource: String,
    /// What is wrong.
    pub message: String,
}
