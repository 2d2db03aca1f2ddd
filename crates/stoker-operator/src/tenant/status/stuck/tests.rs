use serde_json::json;

use super::*;

const BEGUN: &str = "2026-01-01T00:00:00Z";

fn condition(status: &str, reason: &str) -> Condition {
    let condition = json!({ "type": "Ready", "status": status, "reason": reason,
        "message": "as it is", "lastTransitionTime": BEGUN });
    serde_json::from_value(condition).unwrap()
}

fn after(minutes: i64) -> Timestamp {
    let begun: Timestamp = BEGUN.parse().unwrap();
    begun + SignedDuration::from_mins(minutes)
}

fn deployment(reason: &str) -> Deployment {
    serde_json::from_value(json!({ "status": { "conditions": [{
        "type": "Progressing", "status": "False", "reason": reason,
        "message": "timed out", "lastTransitionTime": BEGUN,
    }] } }))
    .unwrap()
}

#[test]
fn progress_is_judged_by_what_is_known_and_how_long() {
    let deadline = after(10);
    let stuck = |reason: &str, said: &str| Progress::Stuck {
        reason: reason.to_owned(),
        since: after(0),
        said: said.to_owned(),
    };
    let ready = condition("True", "Available");
    let starting = condition("False", "PodsStarting");
    let sleeping = condition("False", "Sleeping");
    let (late, other) = (deployment("ProgressDeadlineExceeded"), deployment("Other"));
    let of = |ready| Facts {
        ready,
        ..Facts::default()
    };
    let rolled = |deployment| Facts {
        ready: Some(&ready),
        deployment: Some(deployment),
        ..Facts::default()
    };
    let deleted = |ready| Facts {
        ready,
        deleted_at: Some(after(0)),
        ..Facts::default()
    };
    let made = Facts {
        made_at: Some(after(0)),
        ..Facts::default()
    };
    let cases = [
        (of(Some(&ready)), 99, Progress::Fine, "it is ready"),
        (
            of(Some(&sleeping)),
            99,
            Progress::Fine,
            "it sleeps as wanted",
        ),
        (
            of(Some(&starting)),
            10,
            Progress::Until(deadline),
            "it has time",
        ),
        (
            of(Some(&starting)),
            11,
            stuck("PodsStarting", "as it is"),
            "it had its time",
        ),
        (
            rolled(&late),
            1,
            stuck(ROLLOUT, "timed out"),
            "its new pods had theirs",
        ),
        (rolled(&other), 99, Progress::Fine, "another reason"),
        (
            deleted(Some(&ready)),
            5,
            Progress::Until(deadline),
            "it is on its way out",
        ),
        (
            deleted(Some(&ready)),
            11,
            stuck("NotLookedAt", ""),
            "it does not go",
        ),
        (
            deleted(Some(&sleeping)),
            11,
            stuck("Sleeping", "as it is"),
            "asleep, and does not go",
        ),
        (made, 11, stuck("NotLookedAt", ""), "nobody has looked"),
        (of(None), 99, Progress::Fine, "nothing is known"),
    ];
    for (facts, minutes, expected, why) in cases {
        assert_eq!(progress(&facts, after(minutes)), expected, "{why}");
    }
}

#[test]
fn the_condition_comes_once_and_goes_with_its_cause() {
    let mut status = TenantControlPlaneStatus {
        conditions: vec![condition("False", "PodUnschedulable")],
        ..TenantControlPlaneStatus::default()
    };
    assert_eq!(due(&status, after(1)), Some(after(10)));
    mark(&mut status, None, None, 1, after(10));
    assert!(stuck(&status).is_none());
    mark(&mut status, None, None, 1, after(11));
    let first = stuck(&status).unwrap().clone();
    assert_eq!(first.reason, "PodUnschedulable");
    assert_eq!(
        first.message,
        "no progress since 2026-01-01T00:00:00Z: as it is. What to do: make room on the management cluster (nodes, quota), \
         or ask for less in spec.controlPlane.deployment.resources"
    );
    mark(&mut status, None, None, 1, after(99));
    assert_eq!(stuck(&status), Some(&first), "nothing to write");
    assert_eq!(due(&status, after(99)), None);
    status.conditions[0] = condition("True", "Available");
    mark(&mut status, None, None, 1, after(100));
    assert!(stuck(&status).is_none());
}
