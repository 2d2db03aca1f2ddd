//! Timing of the probes.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::arguments::Component;
use crate::v1alpha1::core::bare;
use crate::v1alpha1::rules::is_default;

/// Timing of the probes. A component's own settings win over those for all; what neither sets stays
/// as Stoker has it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(ONE_SUCCESS).message(ONE_SUCCESS_MESSAGE))]
pub struct Probes {
    /// When a hung container is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeTiming>,
    /// When the API server leaves the Service. The other components have a readiness probe only if
    /// theirs is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeTiming>,
    /// How long a container may take to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeTiming>,
    /// kube-apiserver's own.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "bare::<ComponentProbes>")]
    pub api_server: ComponentProbes,
    /// kube-controller-manager's own.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "bare::<ComponentProbes>")]
    pub controller_manager: ComponentProbes,
    /// kube-scheduler's own.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "bare::<ComponentProbes>")]
    pub scheduler: ComponentProbes,
}

/// Timing of the probes of one component.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new(ONE_SUCCESS).message(ONE_SUCCESS_MESSAGE))]
pub struct ComponentProbes {
    /// When a hung container is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeTiming>,
    /// When the pod leaves the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeTiming>,
    /// How long the container may take to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeTiming>,
}

/// Timing of one probe, as of a container's probe.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTiming {
    /// Seconds before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds that an answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i32>,
    /// Seconds between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub period_seconds: Option<i32>,
    /// Successes in a row that count; 1 for liveness and startup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub success_threshold: Option<i32>,
    /// Failures in a row that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<i32>,
}

const ONE_SUCCESS: &str = "\
    (!has(self.liveness) || !has(self.liveness.successThreshold) || \
    self.liveness.successThreshold == 1) && \
    (!has(self.startup) || !has(self.startup.successThreshold) || \
    self.startup.successThreshold == 1)";
const ONE_SUCCESS_MESSAGE: &str =
    "probes: successThreshold is 1 for liveness and startup probes, as Kubernetes wants it";

impl Probes {
    /// What was asked for of `component` alone.
    #[must_use]
    pub fn of(&self, component: Component) -> &ComponentProbes {
        match component {
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
            Component::Scheduler => &self.scheduler,
        }
    }
}
