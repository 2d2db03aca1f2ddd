//! What a tenant that sleeps, or has slept, says of it.

use jiff::Timestamp;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    HibernationReason, HibernationState, HibernationStatus, TenantControlPlaneStatus,
};

use super::urgency::{is_problem, ready};
use super::{Check, Findings, set};
use crate::tenant::hibernation::{why_asleep, why_awake};

/// Reason of `Ready`: no pods are wanted.
pub(super) const SLEEPING: &str = "Sleeping";
/// Reason of `Ready`: it slept, and nothing but time is between it and being ready.
pub(super) const WAKING: &str = "Waking";
/// The condition of tenants that sleep, or would by `spec.hibernation`.
const CONDITION: &str = "Sleeping";

/// `ready`, unless the tenant has slept and is only not ready yet.
pub(super) fn waking(
    old: &TenantControlPlaneStatus,
    tenant: Option<&Tenant>,
    findings: &Findings,
    check: Check,
) -> Check {
    let slept = ready(old).is_some_and(|ready| matches!(&*ready.reason, SLEEPING | WAKING));
    let is_awake = tenant.is_some_and(|tenant| tenant.replicas > 0);
    if !slept || !is_awake || check.holds || is_problem(check.reason) {
        return check;
    }
    // The same words until it is ready, so that they are written once.
    let why = why_awake(findings.hibernation.as_ref());
    Check::fails(WAKING, format!("{why}; its API server is not ready yet"))
}

/// Sets the condition, or takes it from a tenant that has nothing to do with sleep.
pub(super) fn describe(
    status: &mut TenantControlPlaneStatus,
    tenant: Option<&Tenant>,
    findings: &Findings,
    ready: &Check,
    generation: i64,
    now: Timestamp,
) {
    let Some(tenant) = tenant else {
        return;
    };
    let hibernation = findings.hibernation.as_ref();
    let check = if tenant.replicas == 0 {
        Check::holds(
            asleep_by(hibernation),
            why_asleep(hibernation, findings.no_replicas),
        )
    } else if ready.reason == WAKING {
        Check::fails(WAKING, why_awake(hibernation))
    } else if let Some(hibernation) = hibernation {
        Check::fails("Awake", awake(hibernation))
    } else {
        status.conditions.retain(|found| found.type_ != CONDITION);
        return;
    };
    set(status, CONDITION, &check, generation, now);
}

fn asleep_by(hibernation: Option<&HibernationStatus>) -> &'static str {
    let asleep = hibernation.filter(|status| status.state == HibernationState::Asleep);
    match asleep.map(|status| status.reason) {
        Some(HibernationReason::Schedule) => "Schedule",
        Some(HibernationReason::ByHand) => "ByHand",
        Some(HibernationReason::Idle) => "Idle",
        Some(
            HibernationReason::Made | HibernationReason::Connection | HibernationReason::NoReplicas,
        )
        | None => "NoReplicas",
    }
}

fn awake(hibernation: &HibernationStatus) -> String {
    let since = format!("awake since {:.0}", hibernation.since.0);
    match &hibernation.until {
        Some(until) => format!("{since}, asleep from {:.0}", until.0),
        None => since,
    }
}
