//! `spec.controlPlane`: how the control plane runs and is exposed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    ControlPlaneDeployment, ControlPlaneGateway, ControlPlaneIngress, ControlPlaneService,
};

/// How the control plane runs and is exposed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.ingress) && has(self.gateway))").message(
    "ingress and gateway exclude each other: nodes and people dial one hostname"
))]
pub struct ControlPlane {
    /// The pods of the control plane.
    #[serde(default)]
    pub deployment: Box<ControlPlaneDeployment>,
    /// The Service in front of them.
    pub service: ControlPlaneService,
    /// An `Ingress` in front of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<ControlPlaneIngress>,
    /// A `TLSRoute` to the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<ControlPlaneGateway>,
}
