//! `spec.controlPlane`: how the control plane runs and is exposed.

use kube::KubeSchema;
use schemars::JsonSchema;
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
    /// Requests, in-flight limits and clients' rates of the components; what `deployment` says wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// A `TLSRoute` to the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<ControlPlaneGateway>,
}

/// Size classes, by the worker nodes that they are meant for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Up to 10.
    Small,
    /// Up to 100.
    Medium,
    /// Up to 500.
    Large,
    /// Up to 2,000.
    XLarge,
}
