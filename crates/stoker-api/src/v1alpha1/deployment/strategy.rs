//! How pods are replaced.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pods are replaced, as of a Deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.rollingUpdate) || !has(self.type) || self.type == 'RollingUpdate'"
).message("strategy: rollingUpdate goes with type RollingUpdate alone"))]
pub struct Strategy {
    /// `RollingUpdate` or `Recreate`. Default: `RollingUpdate`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<StrategyType>,
    /// How far a rolling update may go above and below the number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Ways to replace pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names are apps/v1 DeploymentStrategy's own"
)]
pub enum StrategyType {
    RollingUpdate,
    Recreate,
}

/// How far a rolling update may go above and below the number of pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "[has(self.maxSurge) ? string(self.maxSurge) : '0', \
         has(self.maxUnavailable) ? string(self.maxUnavailable) : '0']\
         .all(x, x.matches('^[0-9]{1,9}%?$'))"
    ).message("rollingUpdate: give a number of pods, or a percentage such as 25%"),
    validation = Rule::new(
        "!(has(self.maxSurge) && has(self.maxUnavailable) && \
         string(self.maxSurge).matches('^0+%?$') && string(self.maxUnavailable).matches('^0+%?$'))"
    ).message("rollingUpdate: maxSurge and maxUnavailable cannot both be 0")
)]
pub struct RollingUpdate {
    /// Pods above the number. Default: 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
    /// Pods below the number. Default: 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}
