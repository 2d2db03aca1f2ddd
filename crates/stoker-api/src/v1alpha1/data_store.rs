//! The `DataStore` kind: one etcd cluster of the pool.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One etcd cluster of the pool, shared by many tenants, each under a prefix of its own.
#[expect(clippy::duplicated_attributes, reason = "two columns are strings")]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "DataStore",
    plural = "datastores",
    category = "stoker",
    doc = "One etcd cluster of the pool, shared by many tenants, each under a prefix of its own.",
    status = "DataStoreStatus",
    derive = "PartialEq",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
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
#[x_kube(validation = Rule::new(
    "self.driver != 'etcd' || has(self.tlsConfig.certificateAuthority.privateKey)"
).message(
    "tlsConfig.certificateAuthority.privateKey is required for etcd: it signs one client \
     certificate per tenant"
))]
pub struct DataStoreSpec {
    /// Kind of store. It cannot change later.
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "driver cannot change: make a new DataStore with the other driver"
    ))]
    pub driver: Driver,
    /// Members' client addresses, `host:port` without a scheme.
    #[schemars(length(min = 1, max = 16), inner(length(max = 261)))]
    #[x_kube(
        validation = Rule::new(format!("self.all(endpoint, endpoint.matches('{ENDPOINT}'))")).message(
            "endpoints: every entry must be host:port without a scheme, such as \
             etcd-0.etcd:2379, 192.0.2.1:2379 or [2001:db8::1]:2379"
        ),
        merge_strategy = ListMerge::Set
    )]
    pub endpoints: Vec<String>,
    /// Certificates of the store.
    pub tls_config: TlsConfig,
}

/// Host name, IPv4 or bracketed IPv6 address, and a port from 1 to 65535.
const ENDPOINT: &str = r"^([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|\\[[0-9a-fA-F:.]+\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

/// Kinds of stores.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// etcd with client-certificate authentication and RBAC.
    #[serde(rename = "etcd")]
    Etcd,
}

/// Certificates of the store.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// The authority that signs the store's client certificates and its serving certificate. Its
    /// key issues one client certificate per tenant.
    pub certificate_authority: OptionalKeyPair,
    /// The client certificate of etcd's `root` user, used by the operator.
    pub client_certificate: KeyPair,
}

/// A certificate, with its key when one is needed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OptionalKeyPair {
    /// PEM certificate.
    pub certificate: Content,
    /// PEM private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Content>,
}

/// A certificate and its key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyPair {
    /// PEM certificate.
    pub certificate: Content,
    /// PEM private key.
    pub private_key: Content,
}

/// Bytes given in place or by reference to a Secret; `content` wins.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.content) && size(self.content) > 0) || has(self.secretReference)"
).message("give content (base64) or secretReference"))]
pub struct Content {
    /// The bytes, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "base64_bytes")]
    pub content: Option<String>,
    /// A Secret's key that holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_reference: Option<ContentReference>,
}

fn base64_bytes(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    // 64 KiB: an authority is one to a few kilobytes.
    schemars::json_schema!({ "type": "string", "format": "byte", "maxLength": 65536 })
}

/// A key of a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContentReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Secret.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Key in the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    pub key_path: String,
}

/// What the operator last saw of the store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DataStoreStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Whether tenants can be placed here.
    #[serde(default)]
    pub ready: bool,
    /// Lowest etcd version among the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tenants whose state is here, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// `Ready` and its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
