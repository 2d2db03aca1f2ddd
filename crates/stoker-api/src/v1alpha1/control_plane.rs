//! `spec.controlPlane`: how the control plane runs and is exposed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the control plane runs and is exposed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// The pods of the control plane.
    #[serde(default)]
    pub deployment: ControlPlaneDeployment,
    /// The Service in front of them.
    pub service: ControlPlaneService,
}

/// The pods of the control plane.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneDeployment {
    /// Number of control-plane pods; 0 puts the tenant to sleep with everything kept. Default: 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
}

fn default_replicas() -> i32 {
    2
}

impl Default for ControlPlaneDeployment {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
        }
    }
}

/// The Service in front of the control plane.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneService {
    /// How the API server is reached.
    pub service_type: ServiceType,
    /// Labels and annotations added to the Service.
    #[serde(default)]
    pub additional_metadata: AdditionalMetadata,
}

/// Labels and annotations to add to an object.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct AdditionalMetadata {
    /// Labels to add. Stoker's own labels win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add. Stoker's own annotations win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How the API server is reached.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// From inside the management cluster.
    ClusterIP,
    /// On `networkProfile.address` at every node's port `networkProfile.port`.
    NodePort,
    /// On the address that the cloud assigns.
    LoadBalancer,
}
