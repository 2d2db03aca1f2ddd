//! The `PodDisruptionBudget` of a control plane.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::Tenant;

use crate::Names;
use crate::metadata::{CONTROL_PLANE, metadata, pod_selector};

/// Lets drains take one pod at a time. With a single replica there is none, because it would only
/// block them. Pods that are not ready may always be evicted: they serve nobody.
pub(crate) fn pod_disruption_budget(tenant: &Tenant) -> Option<PodDisruptionBudget> {
    (tenant.replicas >= 2).then(|| PodDisruptionBudget {
        metadata: metadata(tenant, &Names::of(tenant).deployment, CONTROL_PLANE),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(pod_selector(tenant)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
