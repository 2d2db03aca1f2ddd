//! What is recorded of a tenant of `replicas: 0`, which sleeps whatever asks for waking. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stoker_api::tenant::Hibernation;
use stoker_api::v1alpha1::{HibernationReason, HibernationState, HibernationStatus};

use super::next::{Seen, next};

use HibernationReason::{Made, NoReplicas};
use HibernationState::{Asleep, Awake};

/// While it has none. What puts it to sleep meanwhile is recorded, so that it still does when it has some again.
pub(super) fn status(
    plan: &Hibernation,
    recorded: HibernationStatus,
    now: Timestamp,
) -> HibernationStatus {
    let by_plan = followed(plan, &recorded, now);
    let asleep = match by_plan.state {
        Asleep => by_plan,
        Awake if recorded.reason == NoReplicas => recorded,
        Awake => HibernationStatus {
            state: Asleep,
            since: Time(now),
            reason: NoReplicas,
            ..by_plan
        },
    };
    // Nothing but another number wakes it.
    HibernationStatus {
        until: None,
        wakes_on_connection: false,
        ..asleep
    }
}

/// What was recorded, once it has some: if nothing else put it to sleep it is awake from now on.
pub(super) fn ended(
    plan: &Hibernation,
    recorded: HibernationStatus,
    now: Timestamp,
) -> HibernationStatus {
    if recorded.reason != NoReplicas {
        return recorded;
    }
    let by_plan = followed(plan, &recorded, now);
    match by_plan.state {
        Asleep => by_plan,
        Awake => HibernationStatus {
            since: Time(now),
            ..by_plan
        },
    }
}

/// What follows from the plan but for who was there: nobody can be.
fn followed(plan: &Hibernation, recorded: &HibernationStatus, now: Timestamp) -> HibernationStatus {
    let plan = Hibernation {
        idle_after: None,
        ..plan.clone()
    };
    let mut recorded = recorded.clone();
    if recorded.reason == NoReplicas {
        (recorded.state, recorded.reason) = (Awake, Made);
    }
    next(&plan, &recorded, Seen::default(), now).status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Hibernation {
        let spec = json!({
            "idleAfter": "30m", "schedule": { "sleep": "0 20 * * *", "wake": "0 7 * * *" },
        });
        Hibernation::validate(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}:00Z").parse().unwrap()
    }

    fn of(state: HibernationState, since: &str, reason: HibernationReason) -> HibernationStatus {
        HibernationStatus {
            state,
            since: Time(at(since)),
            reason,
            until: None,
            wakes_on_connection: false,
        }
    }

    #[test]
    fn a_tenant_without_replicas_never_says_that_it_is_awake() {
        let noon = of(Awake, "05T07:00", HibernationReason::Schedule);
        let then = status(&plan(), noon, at("05T12:00"));
        assert_eq!(then, of(Asleep, "05T12:00", NoReplicas));
        // However often it is looked at.
        let later = status(&plan(), then.clone(), at("05T13:00"));
        assert_eq!(later, then);
        // At night it would sleep anyway, and in the morning not.
        let night = status(&plan(), later, at("05T21:00"));
        assert_eq!(night, of(Asleep, "05T20:00", HibernationReason::Schedule));
        let morning = status(&plan(), night, at("06T08:00"));
        assert_eq!(morning, of(Asleep, "06T08:00", NoReplicas));
    }

    #[test]
    fn with_replicas_again_it_is_awake_from_then_on_unless_it_is_to_sleep() {
        let none = of(Asleep, "05T12:00", NoReplicas);
        let woken = ended(&plan(), none.clone(), at("05T15:00"));
        assert_eq!((woken.state, woken.reason), (Awake, Made));
        assert_eq!(woken.since.0, at("05T15:00"), "nobody was away since noon");
        let seen = Seen::default();
        assert!(!next(&plan(), &woken, seen, at("05T15:00")).asks);

        let night = ended(&plan(), none, at("05T21:00"));
        assert_eq!((night.state, night.since.0), (Asleep, at("05T20:00")));
        let idle = of(Awake, "05T12:00", HibernationReason::Connection);
        assert_eq!(ended(&plan(), idle.clone(), at("05T21:00")), idle);
    }
}
