//! `spec.controlPlane`: how the control plane runs and is exposed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AdditionalMetadata, ControlPlaneDeployment};

/// How the control plane runs and is exposed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// The pods of the control plane.
    #[serde(default)]
    pub deployment: Box<ControlPlaneDeployment>,
    /// The Service in front of them.
    pub service: ControlPlaneService,
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
