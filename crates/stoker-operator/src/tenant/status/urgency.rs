//! What of a status can wait. A birth passes through states in which nobody has anything to do but wait; each would cost
//! a write, an event and the notice of both.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::v1alpha1::{DeploymentStatus, TenantControlPlaneStatus};
use stoker_kube::conditions;

use crate::tenant::{authority, encryption, writes};

/// Between two writes that only tell how far something has come.
pub const PROGRESS: Duration = Duration::from_secs(5);

/// Waiting is a state, not an error: every other reason needs a person.
#[must_use]
pub fn is_problem(reason: &str) -> bool {
    !matches!(
        reason,
        "PodsStarting"
            | "APIServerStarting"
            | "EndpointPending"
            | "RoutePending"
            | "Sleeping"
            | "Waking"
    )
}

/// Whether somebody may be waiting for `new`, where `old` is what the object says: everything but the replicas counted,
/// and the conditions as long as the tenant stays as ready as it is and has no problem.
#[must_use]
pub fn is_urgent(old: &TenantControlPlaneStatus, new: &TenantControlPlaneStatus) -> bool {
    let (Some(before), Some(after)) = (ready(old), ready(new)) else {
        return true;
    };
    let calm = |ready: &Condition| ready.status == "True" || !is_problem(&ready.reason);
    let writes = writes::condition(old) != writes::condition(new);
    let encryption = encryption::reason(old) != encryption::reason(new);
    let authority = authority::reason(old) != authority::reason(new);
    if writes
        || encryption
        || authority
        || before.status != after.status
        || !calm(before)
        || !calm(after)
    {
        return true;
    }
    let mut progressed = old.clone();
    progressed.conditions.clone_from(&new.conditions);
    let counted = &mut progressed.kubernetes_resources.deployment;
    let DeploymentStatus {
        replicas,
        ready_replicas,
        updated_replicas,
        ..
    } = new.kubernetes_resources.deployment;
    (
        counted.replicas,
        counted.ready_replicas,
        counted.updated_replicas,
    ) = (replicas, ready_replicas, updated_replicas);
    progressed != *new
}

/// The condition that sums up.
#[must_use]
pub fn ready(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Ready's status and reason, replicas counted, and the endpoint.
    fn status(
        ready: &str,
        reason: &str,
        replicas: i32,
        endpoint: &str,
    ) -> TenantControlPlaneStatus {
        let mut status = TenantControlPlaneStatus {
            control_plane_endpoint: Some(endpoint.to_owned()),
            ..TenantControlPlaneStatus::default()
        };
        let condition = json!({"type": "Ready", "status": ready, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status.conditions = vec![serde_json::from_value(condition).unwrap()];
        status.kubernetes_resources.deployment.replicas = replicas;
        status
    }

    #[test]
    fn only_progress_can_wait() {
        let waits = status("False", "PodsStarting", 0, "a");
        let urgent = [
            (status("False", "KeyLost", 0, "a"), "a problem"),
            (status("True", "Available", 0, "a"), "ready"),
            (status("False", "PodsStarting", 0, "b"), "another address"),
        ];
        for (new, why) in urgent {
            assert!(is_urgent(&waits, &new), "{why}");
            assert!(is_urgent(&new, &waits), "{why} no longer");
        }
        assert!(is_urgent(&TenantControlPlaneStatus::default(), &waits));
        for progress in [
            status("False", "APIServerStarting", 0, "a"),
            status("False", "PodsStarting", 1, "a"),
        ] {
            assert!(!is_urgent(&waits, &progress));
        }
        let ready = |replicas| status("True", "Available", replicas, "a");
        assert!(!is_urgent(&ready(0), &ready(1)));
    }
}
