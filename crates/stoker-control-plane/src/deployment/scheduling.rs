//! Keeps a tenant's pods apart, where that is possible, unless people know better.
//!
//! Both defaults are preferences, so they do nothing to a single pod and are always there: scaling between
//! one replica and two must not change the pod template.

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use stoker_api::tenant::Tenant;

use crate::metadata::pod_selector;

/// Compare only pods of one template: during a rolling update new pods need not avoid old ones.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The one asked for, else: prefer nodes without another pod of the tenant.
pub(super) fn affinity(tenant: &Tenant) -> Affinity {
    let asked = tenant.deployment.affinity.as_ref();
    asked.map_or_else(|| apart(tenant), |asked| asked.0.clone())
}

fn apart(tenant: &Tenant) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        label_selector: Some(pod_selector(tenant)),
                        match_label_keys: Some(vec![TEMPLATE_HASH.to_owned()]),
                        topology_key: "kubernetes.io/hostname".to_owned(),
                        ..PodAffinityTerm::default()
                    },
                },
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Those asked for, which count the tenant's pods where they do not say which; else: prefer zones
/// with fewer pods of the tenant.
pub(super) fn topology_spread(tenant: &Tenant) -> Vec<TopologySpreadConstraint> {
    let mut asked = tenant.deployment.topology_spread_constraints.0.clone();
    if asked.is_empty() {
        return vec![zone_spread(tenant)];
    }
    for constraint in &mut asked {
        constraint
            .label_selector
            .get_or_insert_with(|| pod_selector(tenant));
    }
    asked
}

fn zone_spread(tenant: &Tenant) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(pod_selector(tenant)),
        match_label_keys: Some(vec![TEMPLATE_HASH.to_owned()]),
        ..TopologySpreadConstraint::default()
    }
}
