//! `spec.controlPlane`: how the control plane runs and is exposed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ControlPlaneDeployment, ControlPlaneService};

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
