//! The `DataStore` kind: one etcd cluster of the pool.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One etcd cluster of the pool, shared by many tenants, each under a prefix of its own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "DataStore",
    plural = "datastores",
    category = "stoker",
    status = "DataStoreStatus",
    derive = "PartialEq",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DataStoreSpec {
    /// Kind of store. It cannot change later.
    pub driver: Driver,
    /// Members' client addresses, `host:port` without a scheme.
    #[schemars(length(min = 1, max = 16))]
    pub endpoints: Vec<String>,
    /// Certificates of the store.
    pub tls_config: TlsConfig,
}

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
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
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
    schemars::json_schema!({ "type": "string", "format": "byte" })
}

/// A key of a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContentReference {
    /// Name of the Secret.
    pub name: String,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Key in the Secret's data.
    #[schemars(length(min = 1))]
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
