//! What a changed status is told as an event, beside readiness.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};

use super::status::stuck;
use super::writes;
use super::{authority, encryption};
use crate::context::Context;

/// Events of what is new in a status that was written.
pub(super) async fn tell(
    object: &TenantControlPlane,
    old: &TenantControlPlaneStatus,
    new: &TenantControlPlaneStatus,
    ctx: &Context,
) {
    if let Some(found) = newly(stuck::stuck, old, new, by_reason) {
        tracing::warn!(reason = %found.reason, "tenant is stuck");
        publish(object, true, stuck::STUCK, &found.message, ctx).await;
    }
    if let Some(found) = newly(writes::condition, old, new, by_words) {
        tracing::info!(reason = %found.reason, "write permissions");
        let problem = found.status != "True";
        publish(object, problem, &found.reason, &found.message, ctx).await;
    }
    if let Some(found) = newly(encryption::condition, old, new, by_reason) {
        tracing::info!(reason = %found.reason, "encryption of what is stored");
        let problem = encryption::is_problem(found);
        publish(object, problem, &found.reason, &found.message, ctx).await;
    }
    if let Some(found) = newly(authority::condition, old, new, by_reason) {
        tracing::info!(reason = %found.reason, "cluster authority");
        publish(object, false, &found.reason, &found.message, ctx).await;
    }
}

/// The condition as it is now, if it was not the same before.
fn newly<'a>(
    of: impl Fn(&'a TenantControlPlaneStatus) -> Option<&'a Condition>,
    old: &'a TenantControlPlaneStatus,
    new: &'a TenantControlPlaneStatus,
    is_same: impl Fn(&Condition, &Condition) -> bool,
) -> Option<&'a Condition> {
    let before = of(old);
    of(new).filter(|now| !before.is_some_and(|before| is_same(before, now)))
}

fn by_reason(before: &Condition, now: &Condition) -> bool {
    before.reason == now.reason
}

fn by_words(before: &Condition, now: &Condition) -> bool {
    by_reason(before, now) && before.message == now.message
}

async fn publish(
    object: &TenantControlPlane,
    problem: bool,
    reason: &str,
    message: &str,
    ctx: &Context,
) {
    let reference = object.object_ref(&());
    ctx.events
        .publish(&reference, problem, reason, "Reconcile", message)
        .await;
}
