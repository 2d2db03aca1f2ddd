//! When a tenant makes no progress for too long, and what somebody can do about it. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::v1alpha1::TenantControlPlaneStatus;
use stoker_kube::conditions;

use super::urgency::ready;

/// A tenant that is not ready this long does not merely start: somebody should look.
pub const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// The condition; only tenants that are stuck have it.
pub const STUCK: &str = "Stuck";
/// The old pods serve, and new ones do not become ready.
pub const ROLLOUT: &str = "RolloutStuck";
/// Nothing is said against it, and yet it is not there or not gone.
const NOT_LOOKED_AT: &str = "NotLookedAt";

/// Whether something goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is as it should be.
    Fine,
    /// It may still come about by itself until then.
    Until(Timestamp),
    /// It has had its time.
    Stuck {
        /// Of the condition `Ready`, or [`ROLLOUT`].
        reason: String,
        /// When it should have begun to go on.
        since: Timestamp,
        /// What is the case.
        said: String,
    },
}

/// What is known of a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The condition `Ready`.
    pub ready: Option<&'a Condition>,
    /// When its deletion was asked for.
    pub deleted_at: Option<Timestamp>,
    /// When it was made.
    pub made_at: Option<Timestamp>,
    /// Its Deployment.
    pub deployment: Option<&'a Deployment>,
}

/// Sleeping is as wanted. Whoever calls knows whether the tenant is paused, which nobody is to wonder at.
#[must_use]
pub fn progress(facts: &Facts<'_>, now: Timestamp) -> Progress {
    let not_ready = facts.ready.filter(|ready| ready.status != "True");
    if facts.deleted_at.is_none() {
        if not_ready.is_some_and(|ready| ready.reason == "Sleeping") {
            return Progress::Fine;
        }
        if facts.ready.is_some() && not_ready.is_none() {
            return facts.deployment.and_then(rollout).unwrap_or(Progress::Fine);
        }
    }
    let changed = not_ready.map(|ready| ready.last_transition_time.0);
    let Some(since) = facts.deleted_at.or(changed).or(facts.made_at) else {
        return Progress::Fine;
    };
    let until = since + STUCK_AFTER;
    if now <= until {
        return Progress::Until(until);
    }
    let reason = not_ready.map_or(NOT_LOOKED_AT, |ready| &ready.reason);
    let said = not_ready.map_or("", |ready| &ready.message);
    Progress::Stuck {
        reason: reason.to_owned(),
        since,
        said: said.to_owned(),
    }
}

fn rollout(deployment: &Deployment) -> Option<Progress> {
    let found = overdue(deployment)?;
    let since = found.last_transition_time.as_ref().map(|time| time.0);
    Some(Progress::Stuck {
        reason: ROLLOUT.to_owned(),
        since: since.unwrap_or_default(),
        said: found.message.clone().unwrap_or_default(),
    })
}

/// What the Deployment controller says of new pods that take longer than `progressDeadlineSeconds`, ten minutes too.
#[must_use]
pub fn overdue(deployment: &Deployment) -> Option<&DeploymentCondition> {
    let mut conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|found| {
        found.type_ == "Progressing"
            && found.status == "False"
            && found.reason.as_deref() == Some("ProgressDeadlineExceeded")
    })
}

/// Sets the condition on a tenant that is stuck, and takes it from one that is not.
pub fn mark(
    status: &mut TenantControlPlaneStatus,
    deleted_at: Option<Timestamp>,
    deployment: Option<&Deployment>,
    generation: i64,
    now: Timestamp,
) {
    let facts = Facts {
        ready: ready(status),
        deleted_at,
        made_at: None,
        deployment,
    };
    match progress(&facts, now) {
        Progress::Stuck {
            reason,
            since,
            said,
        } => {
            let message = message(&reason, since, &said);
            let conditions = &mut status.conditions;
            conditions::set(conditions, STUCK, true, &reason, &message, generation, now);
        }
        Progress::Fine | Progress::Until(_) => {
            status.conditions.retain(|found| found.type_ != STUCK);
        }
    }
}

/// When the tenant of this status will be stuck, if nothing happens.
#[must_use]
pub fn due(status: &TenantControlPlaneStatus, now: Timestamp) -> Option<Timestamp> {
    let facts = Facts {
        ready: ready(status),
        ..Facts::default()
    };
    match progress(&facts, now) {
        Progress::Until(until) => Some(until),
        Progress::Fine | Progress::Stuck { .. } => None,
    }
}

/// The condition, if the tenant has it.
#[must_use]
pub fn stuck(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, STUCK)
}

/// The same words as long as it is stuck for the same reason, so that they are written once.
fn message(reason: &str, since: Timestamp, said: &str) -> String {
    let said = if said.is_empty() { reason } else { said };
    let what_to_do = what_to_do(reason);
    format!("no progress since {since:.0}: {said}. What to do: {what_to_do}")
}

/// For people, by reason; the rest is in docs/troubleshooting.md.
fn what_to_do(reason: &str) -> &'static str {
    match reason {
        "PodsStarting" | "Waking" => {
            "see what its pods wait for with `stokerctl events` and `kubectl describe pods -l stoker.dev/name`"
        }
        "APIServerStarting" => {
            "read why kube-apiserver does not answer with `stokerctl logs -c kube-apiserver`; a full or slow pool is the usual cause"
        }
        "PodUnschedulable" | "PodsNotCreated" => {
            "make room on the management cluster (nodes, quota), or ask for less in spec.controlPlane.deployment.resources"
        }
        "ImageNotPulled" => {
            "see that nodes reach the registry of spec.controlPlane.deployment.registrySettings and that the image exists"
        }
        "ContainerCrashed" | "ContainerNotCreated" | "PodFailed" => {
            "read `stokerctl logs --previous`, and undo what was last changed in spec"
        }
        ROLLOUT => {
            "the old pods serve on. Read `stokerctl logs`, and undo what was last changed in spec, or go back to the operator's former version"
        }
        "EndpointPending" | "EndpointUnresolved" => {
            "see that a load balancer gives the Service an address (`kubectl describe service`), or set spec.networkProfile.address"
        }
        "RoutePending" | "RouteNotAccepted" | "GatewayAPIMissing" => {
            "look at the Ingress or TLSRoute and at the gateway that should serve it"
        }
        "TenantNotConfigured" | "TenantTooSlow" => {
            "something inside the tenant refuses or delays what the operator writes there: look at the tenant's admission webhooks first"
        }
        "KeyLost" | "KeyDamaged" | "EscrowUnreadable" => {
            "restore the Secret that is named from backup; no new key is ever made"
        }
        "InvalidSpec" | "InvalidPatch" | "Invalid" => "correct spec as the message says",
        NOT_LOOKED_AT => {
            "see that the operator runs and leads: `kubectl -n stoker-system get pods,lease`"
        }
        "ConnectionRefused"
        | "Unreachable"
        | "UntrustedCertificate"
        | "ClientCertificateRefused"
        | "AuthDisabled"
        | "NotRoot"
        | "VersionBelowFloor"
        | "OutOfSpace"
        | "Corrupt"
        | "DataStoreNotFound"
        | "DataStoreNotChosen" => {
            "mend the DataStore: `kubectl describe datastore` says what is wrong"
        }
        _ => "docs/troubleshooting.md has it by reason",
    }
}

#[cfg(test)]
mod tests;
