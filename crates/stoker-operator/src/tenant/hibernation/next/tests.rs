use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn plan(spec: Value) -> Hibernation {
    Hibernation::validate(&serde_json::from_value(spec).unwrap()).unwrap()
}

/// Asleep on weekdays from eight in the evening to seven in the morning, in Berlin.
fn nights() -> Hibernation {
    plan(json!({ "schedule": {
        "sleep": "0 20 * * 1-5", "wake": "0 7 * * 1-5", "timeZone": "Europe/Berlin",
    }}))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn status(state: HibernationState, since: &str, reason: HibernationReason) -> HibernationStatus {
    HibernationStatus {
        state,
        since: Time(at(since)),
        reason,
        until: None,
        wakes_on_connection: false,
    }
}

fn made(since: &str) -> HibernationStatus {
    status(Awake, since, HibernationReason::Made)
}

/// State, since when, why, until when.
fn said(status: &HibernationStatus) -> (HibernationState, String, HibernationReason, String) {
    let until = status.until.as_ref().map(|until| until.0.to_string());
    (
        status.state,
        status.since.0.to_string(),
        status.reason,
        until.unwrap_or_default(),
    )
}

/// What follows where nobody was seen but perhaps one who connects.
fn then_so(
    plan: &Hibernation,
    recorded: &HibernationStatus,
    wanted: bool,
    now: Timestamp,
) -> HibernationStatus {
    let seen = Seen {
        wanted,
        ..Seen::default()
    };
    next(plan, recorded, seen, now).status
}

#[test]
fn a_tenant_that_is_idle_sleeps_once_it_was_asked_and_not_before() {
    let plan = plan(json!({ "idleAfter": "30m" }));
    let recorded = made("2026-11-23T12:00:00Z");
    let look = |activity: &str, is_fresh, now: &str| {
        let seen = Seen {
            activity: activity.parse().ok(),
            is_fresh,
            ..Seen::default()
        };
        let step = next(&plan, &recorded, seen, at(now));
        let look_at = step.look_at.map(|at| at.to_string()).unwrap_or_default();
        (step.status.state, step.asks, look_at)
    };
    let (noon, half, one) = (
        "2026-11-23T12:00:00Z",
        "2026-11-23T12:30:00Z",
        "2026-11-23T13:00:00Z",
    );
    assert_eq!(look("", false, noon), (Awake, false, half.into()));
    assert_eq!(
        look("", false, half),
        (Awake, true, String::new()),
        "it is asked"
    );
    assert_eq!(
        look(half, true, half),
        (Awake, false, one.into()),
        "somebody was there"
    );
    assert_eq!(look(noon, true, half), (Asleep, false, String::new()));
    assert_eq!(
        look(half, false, one),
        (Awake, true, String::new()),
        "asked again, not at once"
    );
    // Since before it woke nobody needs to have been there.
    assert_eq!(
        look("2026-11-23T09:00:00Z", false, noon),
        (Awake, false, half.into())
    );
}

#[test]
fn a_tenant_woken_at_night_sleeps_again_when_it_is_idle() {
    let mut plan = nights();
    plan.idle_after = Some(jiff::SignedDuration::from_mins(30));
    let woken = status(Awake, "2026-11-23T22:00:00Z", Connection);
    let seen = Seen {
        is_fresh: true,
        ..Seen::default()
    };
    let then = next(&plan, &woken, seen, at("2026-11-23T22:30:00Z"));
    assert_eq!((then.status.state, then.status.reason), (Asleep, Idle));
    assert_eq!(then.look_at, Some(at("2026-11-24T06:00:00Z")));
}

#[test]
fn a_week_by_schedule() {
    let plan = nights();
    let mut recorded = made("2026-11-20T12:00:00Z");
    // Monday the 23rd.
    for (now, state, since, until) in [
        (
            "2026-11-20T18:59:59Z",
            Awake,
            "2026-11-20T12:00:00Z",
            "2026-11-20T19:00:00Z",
        ),
        (
            "2026-11-20T19:00:01Z",
            Asleep,
            "2026-11-20T19:00:00Z",
            "2026-11-23T06:00:00Z",
        ),
        (
            "2026-11-22T12:00:00Z",
            Asleep,
            "2026-11-20T19:00:00Z",
            "2026-11-23T06:00:00Z",
        ),
        (
            "2026-11-23T06:00:01Z",
            Awake,
            "2026-11-23T06:00:00Z",
            "2026-11-23T19:00:00Z",
        ),
        // The operator was down for days.
        (
            "2026-11-26T20:00:00Z",
            Asleep,
            "2026-11-26T19:00:00Z",
            "2026-11-27T06:00:00Z",
        ),
    ] {
        recorded = then_so(&plan, &recorded, false, at(now));
        let (is, from, _, to) = said(&recorded);
        assert_eq!((is, &*from, &*to), (state, since, until), "at {now}");
    }
}

#[test]
fn clocks_that_change_move_the_night() {
    // 02:30 is passed over on the 29th of March, and shown twice on the 25th of October.
    let plan = plan(json!({ "schedule": {
        "sleep": "30 2 * * *", "wake": "0 6 * * *", "timeZone": "Europe/Berlin",
    }}));
    for (now, since) in [
        ("2026-03-29T03:00:00Z", "2026-03-29T01:30:00Z"),
        ("2026-10-25T04:00:00Z", "2026-10-25T00:30:00Z"),
    ] {
        let then = then_so(&plan, &made("2026-01-01T00:00:00Z"), false, at(now));
        assert_eq!(said(&then).0, Asleep, "at {now}");
        assert_eq!(said(&then).1, since, "at {now}");
    }
    // Woken within the hour that comes twice: 02:30 comes only once.
    let woken = status(Awake, "2026-10-25T00:45:00Z", ByHand);
    let then = then_so(&plan, &woken, false, at("2026-10-25T01:45:00Z"));
    assert_eq!(said(&then).0, Awake);
}

#[test]
fn a_schedule_given_at_night_lets_sleep_at_once_but_not_a_tenant_made_that_night() {
    let plan = nights();
    let night = at("2026-11-23T22:00:00Z");
    let old = then_so(&plan, &made("2026-11-01T00:00:00Z"), false, night);
    assert_eq!((old.state, old.reason), (Asleep, Schedule));
    let new = then_so(&plan, &made("2026-11-23T21:00:00Z"), false, night);
    assert_eq!(new.state, Awake);
}

#[test]
fn by_hand_the_last_word_counts() {
    let by_hand = |sleep: &str, wake: &str| {
        let mut plan = nights();
        (plan.sleep_at, plan.wake_at) = (sleep.parse().ok(), wake.parse().ok());
        plan
    };
    let (noon, one, two) = (
        "2026-11-23T12:00:00Z",
        "2026-11-23T13:00:00Z",
        "2026-11-23T14:00:00Z",
    );
    let recorded = status(Awake, "2026-11-23T06:00:00Z", Schedule);
    for (sleep, wake, now, state, reason) in [
        (noon, "", two, Asleep, ByHand),
        (noon, one, two, Awake, Schedule),
        (one, noon, two, Asleep, ByHand),
        // At the same time: awake.
        (noon, noon, two, Awake, Schedule),
        // Before it woke, and in the future.
        ("2026-11-23T05:00:00Z", "", two, Awake, Schedule),
        (two, "", one, Awake, Schedule),
    ] {
        let then = then_so(&by_hand(sleep, wake), &recorded, false, at(now));
        assert_eq!(
            (then.state, then.reason),
            (state, reason),
            "{sleep} {wake} at {now}"
        );
    }
    let planned = then_so(&by_hand(two, ""), &recorded, false, at(noon));
    assert_eq!(said(&planned).3, two);
    // Awake at night by hand, until the next evening.
    let night = status(Asleep, "2026-11-23T19:00:00Z", Schedule);
    let woken = "2026-11-23T21:00:00Z";
    let then = then_so(
        &by_hand("", woken),
        &night,
        false,
        at("2026-11-23T21:00:01Z"),
    );
    assert_eq!(
        (then.state, said(&then).3.as_str()),
        (Awake, "2026-11-24T19:00:00Z")
    );
}

#[test]
fn a_connection_wakes_until_the_next_time_to_sleep_where_it_may() {
    let mut plan = nights();
    let night = status(Asleep, "2026-11-23T19:00:00Z", Schedule);
    let late = at("2026-11-23T22:00:00Z");
    assert!(then_so(&plan, &night, false, late).wakes_on_connection);
    let woken = then_so(&plan, &night, true, late);
    assert_eq!(
        said(&woken),
        (
            Awake,
            "2026-11-23T22:00:00Z".into(),
            Connection,
            "2026-11-24T19:00:00Z".into()
        )
    );
    assert!(!woken.wakes_on_connection);
    // Nobody sleeps again for having been there once.
    assert_eq!(then_so(&plan, &woken, true, late).since, woken.since);
    plan.wake_on_connection = false;
    let asleep = then_so(&plan, &night, true, late);
    assert!(asleep.state == Asleep && !asleep.wakes_on_connection);
}

#[test]
fn a_clock_that_went_back_changes_nothing() {
    let plan = nights();
    let recorded = status(Asleep, "2026-11-23T19:00:00Z", Schedule);
    let then = then_so(&plan, &recorded, false, at("2026-11-23T10:00:00Z"));
    assert_eq!(then.state, Asleep);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whether it is looked at at every due time or only now and then, the tenant is in the same state.
    #[test]
    fn it_does_not_matter_how_often_it_is_looked_at(looks in proptest::collection::vec(1i64..200_000, 1..12)) {
        let plan = nights();
        let begin = at("2026-03-26T12:00:00Z");
        let later = |by: i64| Timestamp::from_second(begin.as_second() + by).unwrap();
        let mut prompt = made("2026-03-26T12:00:00Z");
        let mut seldom = prompt.clone();
        let (mut now, mut passed) = (begin, 0);
        for look in looks {
            passed += look;
            while let Some(due) = prompt.until.as_ref().map(|until| until.0).filter(|due| *due < later(passed)) {
                prop_assert!(due > now);
                now = due;
                prompt = then_so(&plan, &prompt, false, now);
            }
            now = later(passed);
            prompt = then_so(&plan, &prompt, false, now);
            seldom = then_so(&plan, &seldom, false, now);
            prop_assert_eq!(prompt.state, seldom.state);
            prop_assert_eq!(&prompt.until, &seldom.until);
            // What is recorded as due is not in the past.
            prop_assert!(prompt.until.as_ref().is_none_or(|until| until.0 > now));
        }
    }
}
