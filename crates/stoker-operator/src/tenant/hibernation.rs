//! Whether a tenant sleeps by `spec.hibernation`. While it does it is as one with `replicas: 0`: no pod, no connection, no
//! watch, and of this process one time at which to look again.
//!
//! ```text
//!  status.hibernation ─┐
//!  spec.hibernation ───┼─► next() ─► status.hibernation, when to look again ─► replicas: 0, or those of the spec
//!  the time ───────────┤
//!  who was there ──────┘   (asked when it would sleep if nobody was)
//! ```

mod activity;
mod next;
mod no_replicas;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    HibernationReason, HibernationState, HibernationStatus, TenantControlPlane,
};
use stoker_api::wake;

use super::error::Error;
use super::state::{TenantState, lock};
use super::status::Findings;
use crate::context::Context;
use crate::watches::wake_requests;
use next::{Seen, next};

/// When an API server did not tell who was there.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Lets the tenant sleep where it is to, and returns when to look again. `wanted` says whether somebody wanted it as the pass
/// began.
pub(super) async fn decide(
    object: &TenantControlPlane,
    tenant: &mut Tenant,
    wanted: bool,
    state: &TenantState,
    ctx: &Context,
    findings: &mut Findings,
) -> Option<Timestamp> {
    let plan = tenant.hibernation.as_deref()?;
    // As the status is read again: to the second.
    let now = Timestamp::from_second(Timestamp::now().as_second()).ok()?;
    let recorded = lock(&state.written)
        .as_ref()
        .or(object.status.as_ref())
        .and_then(|status| status.hibernation.clone());
    let recorded = recorded.unwrap_or_else(|| made(object, now));
    if tenant.replicas == 0 {
        findings.hibernation = Some(no_replicas::status(plan, recorded, now));
        findings.no_replicas = true;
        return None;
    }
    let recorded = no_replicas::ended(plan, recorded, now);
    let mut seen = Seen {
        wanted,
        activity: *lock(&state.activity),
        is_fresh: false,
    };
    let mut step = next(plan, &recorded, seen, now);
    let mut look_at = step.look_at;
    if step.asks {
        let idle_since = now.checked_sub(plan.idle_after?).ok()?;
        if let Some(last) = activity::last(tenant, state, ctx, idle_since, now).await {
            *lock(&state.activity) = Some(last);
            (seen.activity, seen.is_fresh) = (Some(last), true);
            step = next(plan, &recorded, seen, now);
            look_at = step.look_at;
        } else if !lock(&state.pods).serving().is_empty() {
            // Nobody sleeps on doubt. A pod that begins to serve tells by itself.
            let again = now.checked_add(ASK_AGAIN).ok();
            look_at = look_at.into_iter().chain(again).min();
        }
    }
    if step.status.state == HibernationState::Asleep {
        tenant.replicas = 0;
    }
    findings.hibernation = Some(step.status);
    look_at
}

/// Whoever wanted the tenant as the pass began is heard: it is awake, or nobody may wake it. Who has come since is
/// heard by the next pass, which then answers them all.
///
/// # Errors
/// The API server refused.
pub(super) async fn hear(
    object: &TenantControlPlane,
    wishes: Option<u64>,
    state: &TenantState,
    ctx: &Context,
) -> Result<(), Error> {
    let Some(wishes) = wishes else {
        return Ok(());
    };
    if state.wishes() == Some(wishes) {
        let namespace = object.namespace().unwrap_or_default();
        let entry = wake::entry(&namespace, &object.name_any());
        let answered = wake_requests::answered(&[&entry], ctx).await;
        answered.map_err(|error| Error::AnswerWakeRequest(Box::new(error)))?;
    }
    state.hear(wishes);
    Ok(())
}

/// Of a tenant of which nothing is recorded: what has come since it was made counts.
fn made(object: &TenantControlPlane, now: Timestamp) -> HibernationStatus {
    let created = object.metadata.creation_timestamp.as_ref();
    HibernationStatus {
        state: HibernationState::Awake,
        since: created.cloned().unwrap_or(Time(now)),
        reason: HibernationReason::Made,
        until: None,
        wakes_on_connection: false,
    }
}

/// Why it sleeps, for people, and what wakes it. With `no_replicas` nothing does that only its plan says.
#[must_use]
pub fn why_asleep(status: Option<&HibernationStatus>, no_replicas: bool) -> String {
    let by_plan = |status: &&HibernationStatus| {
        status.state == HibernationState::Asleep && status.reason != HibernationReason::NoReplicas
    };
    let Some(status) = status.filter(by_plan) else {
        return "no replicas are wanted; data and keys are kept".to_owned();
    };
    let why = match status.reason {
        HibernationReason::ByHand => "spec.hibernation.sleepAt",
        HibernationReason::Idle => "spec.hibernation.idleAfter",
        HibernationReason::Schedule
        | HibernationReason::Connection
        | HibernationReason::Made
        | HibernationReason::NoReplicas => "its schedule",
    };
    let since = status.since.0;
    if no_replicas {
        return format!(
            "asleep since {since:.0} by {why}, and no replicas are wanted; data and keys are kept. To wake it, set \
             spec.controlPlane.deployment.replicas above 0, and spec.hibernation.wakeAt"
        );
    }
    let or = if status.wakes_on_connection {
        "connect to it through the gateway by the name that wakes, or "
    } else {
        ""
    };
    let until = match &status.until {
        Some(until) => format!(" until {:.0}", until.0),
        None => String::new(),
    };
    format!(
        "asleep since {since:.0} by {why}{until}; data and keys are kept. To wake it, {or}set spec.hibernation.wakeAt"
    )
}

/// What woke it, for people.
#[must_use]
pub fn why_awake(status: Option<&HibernationStatus>) -> &'static str {
    match status.map(|status| status.reason) {
        Some(HibernationReason::Schedule) => "woken by its schedule",
        Some(HibernationReason::ByHand) => "woken by spec.hibernation.wakeAt",
        Some(HibernationReason::Connection) => "woken by a connection through the gateway",
        Some(HibernationReason::Made | HibernationReason::Idle | HibernationReason::NoReplicas)
        | None => "woken by a change of spec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantControlPlane {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": { "name": "one", "namespace": "a" },
            "spec": {
                "controlPlane": { "service": { "serviceType": "ClusterIP" } },
                "kubernetes": { "version": "v1.36.3", "kubelet": {} },
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn who_comes_during_a_pass_is_left_to_the_next() {
        let (parts, _server) = crate::watches::tests::operator(&[]);
        for wanted_before in [false, true] {
            let state = TenantState::default();
            if wanted_before {
                state.wish();
            }
            let wishes = state.wishes();
            state.wish();
            let object = tenant();
            let heard = hear(&object, wishes, &state, &parts.ctx);
            let heard = tokio::time::timeout(std::time::Duration::from_secs(1), heard).await;
            assert!(matches!(heard, Ok(Ok(()))), "the entry stays");
            assert!(state.wishes().is_some(), "{wanted_before}");
        }
    }

    #[test]
    fn without_replicas_nobody_is_told_that_its_plan_would_wake_it() {
        let asleep = HibernationStatus {
            state: HibernationState::Asleep,
            reason: HibernationReason::ByHand,
            ..made(&tenant(), Timestamp::UNIX_EPOCH)
        };
        let with = why_asleep(Some(&asleep), false);
        assert!(
            with.contains("To wake it, set spec.hibernation.wakeAt"),
            "{with}"
        );
        let without = why_asleep(Some(&asleep), true);
        let advice = "set spec.controlPlane.deployment.replicas above 0";
        assert!(without.contains(advice), "{without}");
    }
}
