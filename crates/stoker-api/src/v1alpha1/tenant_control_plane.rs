//! The `TenantControlPlane` kind.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Addons, ControlPlane, Kubernetes, NetworkProfile, TenantControlPlaneStatus};

/// A Kubernetes control plane for one tenant.
///
/// The operator runs kube-apiserver, kube-controller-manager and kube-scheduler as pods in this
/// object's namespace and keeps the tenant's state under a prefix of its own in the `DataStore`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "TenantControlPlane",
    plural = "tenantcontrolplanes",
    shortname = "tcp",
    category = "stoker",
    namespaced,
    status = "TenantControlPlaneStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.controlPlane.deployment.replicas",
        status_replicas_path = ".status.kubernetesResources.deployment.replicas",
        label_selector_path = ".status.kubernetesResources.deployment.selector"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.kubernetes.version"
    ),
    printcolumn(
        name = "Installed Version",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.version"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.status"
    ),
    printcolumn(
        name = "Control-Plane endpoint",
        type_ = "string",
        json_path = ".status.controlPlaneEndpoint"
    ),
    printcolumn(
        name = "Kubeconfig",
        type_ = "string",
        json_path = ".status.kubeconfig.admin.secretName"
    ),
    printcolumn(
        name = "Datastore",
        type_ = "string",
        json_path = ".status.storage.dataStoreName"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TenantControlPlaneSpec {
    /// Name of the `DataStore` that holds this tenant's state. Left out, the operator takes the one
    /// named by its `--datastore` flag, else the only one there is. It cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_store: Option<String>,
    /// How the control plane runs and is exposed.
    pub control_plane: ControlPlane,
    /// The Kubernetes release of the control plane and the settings of its kubelets.
    pub kubernetes: Kubernetes,
    /// Addresses and networks of the tenant cluster.
    #[serde(default)]
    pub network_profile: NetworkProfile,
    /// Software that the operator installs inside the tenant cluster.
    #[serde(default)]
    pub addons: Addons,
    /// What becomes of the tenant's data when this object is deleted.
    #[serde(default)]
    pub deletion: Deletion,
}

/// What becomes of the tenant's data when the object is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// Seconds that the tenant's keys stay in the `DataStore` after this object is gone; 0 removes
    /// them at once. Default: 604800 (a week).
    #[serde(default = "default_retention")]
    #[schemars(range(min = 0))]
    pub data_retention_seconds: i64,
}

fn default_retention() -> i64 {
    7 * 24 * 3600
}

impl Default for Deletion {
    fn default() -> Self {
        Self {
            data_retention_seconds: default_retention(),
        }
    }
}
