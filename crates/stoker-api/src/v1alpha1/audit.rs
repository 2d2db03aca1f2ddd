//! `spec.kubernetes.audit`: which requests the API servers record, and where.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{DNS_NAME, is_default};

/// Which requests the API servers record, and where: to standard output unless told otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// `audit.k8s.io/v1` Policy; without rules one that records who changed what.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: AuditPolicy,
    /// The log. Left out with a webhook, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<AuditLog>,
    /// A server that takes the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<AuditWebhook>,
}

/// What is recorded.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuditPolicy {
    /// The first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rules: Vec<AuditRule>,
    /// Of no request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub omit_stages: Vec<AuditStage>,
    /// Leaves `managedFields` out of bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
}

/// What is recorded of some requests.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.nonResourceURLs) || (!has(self.resources) && !has(self.namespaces))"
).message("a rule is for nonResourceURLs or for resources and namespaces"))]
pub struct AuditRule {
    /// How much.
    pub level: AuditLevel,
    /// Of these users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub users: Vec<String>,
    /// Of these groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub user_groups: Vec<String>,
    /// Of these verbs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub verbs: Vec<String>,
    /// To these resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub resources: Vec<AuditResources>,
    /// In these namespaces; `""` for what is in none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub namespaces: Vec<String>,
    /// To these paths; `*` may stand last.
    #[serde(
        default,
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 32), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new("self.all(u, u.matches('^([*]|/[^*]*[*]?)$'))").message(
        "nonResourceURLs begin with /, and * stands last"
    ))]
    pub non_resource_urls: Vec<String>,
    /// Of these requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub omit_stages: Vec<AuditStage>,
    /// Of these requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
}

/// Resources of one API group.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.resourceNames) || has(self.resources)").message(
    "resourceNames need resources"
))]
pub struct AuditResources {
    /// The group without a version, `""` for the core one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(
        format!("self == '' || self == '*' || self.matches('{DNS_NAME}')")
    ).message("group must be the name of an API group, without a version"))]
    pub group: String,
    /// All when left out; `pods/log` and `*/status` are possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub resources: Vec<String>,
    /// All when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub resource_names: Vec<String>,
}

/// How much of a request is recorded.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are upstream's own")]
pub enum AuditLevel {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When a request is recorded.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are upstream's own")]
pub enum AuditStage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// The log.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuditLog {
    /// An `emptyDir` of `additionalVolumes` for `audit.log`, to be read by an additional container;
    /// standard output when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub volume: Option<String>,
    /// A file's size before the next begins, in MB. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10240))]
    pub max_size: Option<i32>,
    /// Old files to keep. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_backups: Option<i32>,
    /// Days to keep them. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub max_age: Option<i32>,
}

/// A server that takes the events.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuditWebhook {
    /// Secret in the tenant's namespace with the entry `kubeconfig`, credentials inlined. Read at
    /// the start: change it under another name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_NAME}')")).message(
        "secretName must be the name of a Secret"
    ))]
    pub secret_name: String,
}

/// CEL of the spec: a log's volume is there and can be written.
pub(super) const LOG_HAS_A_VOLUME: &str = "\
    !has(self.kubernetes.audit) || !has(self.kubernetes.audit.log) || \
    !has(self.kubernetes.audit.log.volume) || \
    (has(self.controlPlane.deployment.additionalVolumes) && \
    self.controlPlane.deployment.additionalVolumes.exists(v, \
    v.name == self.kubernetes.audit.log.volume && has(v.emptyDir)))";
