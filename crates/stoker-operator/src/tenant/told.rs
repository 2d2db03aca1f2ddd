//! What a changed status is told as an event, beside readiness.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};

use super::encryption;
use super::status::stuck;
use super::writes;
use crate::context::Context;

/// Events of what is new in a status that was written.
pub(super) async fn tell(
    object: &TenantControlPlane,
    old: &TenantControlPlaneStatus,
    new: &TenantControlPlaneStatus,
    ctx: &Context,
) {
    tell_stuck(object, old, new, ctx).await;
    tell_writes(object, old, new, ctx).await;
    encryption::tell(object, old, new, ctx).await;
}

/// Once, when it comes to that.
async fn tell_stuck(
    object: &TenantControlPlane,
    old: &TenantControlPlaneStatus,
    new: &TenantControlPlaneStatus,
    ctx: &Context,
) {
    let reason = |status| stuck::stuck(status).map(|found| &found.reason);
    let Some(found) = stuck::stuck(new).filter(|_| reason(old) != reason(new)) else {
        return;
    };
    tracing::warn!(reason = %found.reason, "tenant is stuck");
    let reference = object.object_ref(&());
    ctx.events
        .publish(&reference, true, stuck::STUCK, "Reconcile", &found.message)
        .await;
}

/// When other writes are refused than before, or when that takes long.
async fn tell_writes(
    object: &TenantControlPlane,
    old: &TenantControlPlaneStatus,
    new: &TenantControlPlaneStatus,
    ctx: &Context,
) {
    let said = |condition: &Condition| (condition.reason.clone(), condition.message.clone());
    let (before, after) = (writes::condition(old), writes::condition(new));
    let Some(condition) = after.filter(|_| before.map(said) != after.map(said)) else {
        return;
    };
    tracing::info!(reason = %condition.reason, "write permissions");
    let reference = object.object_ref(&());
    let (reason, message) = (&condition.reason, &condition.message);
    let problem = condition.status != "True";
    ctx.events
        .publish(&reference, problem, reason, "Reconcile", message)
        .await;
}
