//! `status` of a `TenantControlPlane`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GatewayStatus, HibernationStatus, IngressStatus};

/// What the operator last saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantControlPlaneStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// `host:port` that nodes and people dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// Where the tenant's state is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Secrets of the tenant's authorities and certificates.
    #[serde(default)]
    pub certificates: CertificatesStatus,
    /// Secrets of the kubeconfigs.
    #[serde(default)]
    pub kubeconfig: KubeconfigsStatus,
    /// Objects in the management cluster.
    #[serde(default)]
    pub kubernetes_resources: KubernetesResourcesStatus,
    /// Whether the API servers verify the certificates that kubelets serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelets_verified: Option<bool>,
    /// Whether the control plane sleeps by `spec.hibernation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernation: Option<HibernationStatus>,
    /// The kubeadm configuration from which the tenant was made.
    #[serde(default)]
    pub kubeadmconfig: ConfigMapStatus,
    /// Add-ons inside the tenant.
    #[serde(default)]
    pub addons: AddonsStatus,
    /// `Ready` and the steps to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where the tenant's state is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Driver of the `DataStore`.
    pub driver: String,
    /// Name of the `DataStore`.
    #[schemars(length(max = 253))]
    pub data_store_name: String,
    /// Secret with the identity in the store.
    #[serde(default)]
    pub config: SecretStatus,
    /// Secret with the client certificate.
    #[serde(default)]
    pub certificate: SecretStatus,
    /// The identity in the store.
    pub setup: StorageSetupStatus,
}

/// The tenant's identity in the store: minted once, never reused.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StorageSetupStatus {
    /// The storage id; keys live between `/<schema>/` and `/<schema>0`.
    pub schema: String,
    /// etcd user and role, equal to the storage id.
    pub user: String,
}

/// A Secret that the operator keeps.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretStatus {
    /// Name of the Secret.
    pub secret_name: String,
}

/// A `ConfigMap` that the operator keeps.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapStatus {
    /// Name of the `ConfigMap`.
    #[serde(rename = "configmapName")]
    pub config_map_name: String,
}

/// Secrets of the tenant's authorities and certificates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificatesStatus {
    /// The cluster authority.
    pub ca: SecretStatus,
    /// The API server's serving certificate.
    pub api_server: SecretStatus,
    /// The API server's client certificate towards kubelets.
    pub api_server_kubelet_client: SecretStatus,
    /// The authority of aggregated API servers' clients.
    #[serde(rename = "frontProxyCA")]
    pub front_proxy_ca: SecretStatus,
    /// The API server's client certificate towards aggregated API servers.
    pub front_proxy_client: SecretStatus,
    /// The service-account key pair.
    pub sa: SecretStatus,
}

/// Secrets of the kubeconfigs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigsStatus {
    /// For people: group `kubeadm:cluster-admins`.
    pub admin: SecretStatus,
    /// For kube-controller-manager.
    pub controller_manager: SecretStatus,
    /// For kube-scheduler.
    pub scheduler: SecretStatus,
}

/// Objects in the management cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesResourcesStatus {
    /// Release that runs and the tenant's state in one word.
    pub version: VersionStatus,
    /// The control plane's Deployment.
    pub deployment: DeploymentStatus,
    /// The control plane's Service.
    pub service: ServiceStatus,
    /// The `Ingress`, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressStatus>,
    /// The `TLSRoute`, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
}

/// Release that runs and the tenant's state in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct VersionStatus {
    /// Release that was last rolled out completely.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    pub version: Option<String>,
    /// The tenant's state in one word.
    pub status: VersionState,
}

/// The tenant's state in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionState {
    /// Being made.
    #[default]
    Provisioning,
    /// The API server answers and the tenant's objects are in place.
    Ready,
    /// As `Ready`, and every API server refuses the writes of `spec.writePermissions`.
    WriteLimited,
    /// It was ready, and its API server does not answer now.
    NotReady,
    /// Another release is being rolled out.
    Upgrading,
    /// No pods are wanted; everything is kept.
    Sleeping,
    /// It slept, and its API server does not answer yet.
    Waking,
    /// Being deleted.
    Deleting,
}

/// The control plane's Deployment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Name of the Deployment.
    pub name: String,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Label selector of its pods, for the scale subresource.
    pub selector: String,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Pods of the current template.
    pub updated_replicas: i32,
}

/// The control plane's Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Name of the Service.
    pub name: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Port that people dial.
    pub port: i32,
    /// Addresses or hostnames that the load balancer published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<String>,
}

/// Add-ons inside the tenant.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonsStatus {
    /// Cluster DNS.
    #[serde(rename = "coreDNS")]
    pub core_dns: AddonStatus,
    /// The Service proxy.
    pub kube_proxy: AddonStatus,
    /// The tunnel.
    pub konnectivity: AddonStatus,
    /// The API server at an address of every node.
    pub node_listener: AddonStatus,
}

/// One add-on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct AddonStatus {
    /// Whether it is installed.
    pub enabled: bool,
}
