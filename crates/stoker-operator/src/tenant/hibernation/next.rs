//! What of everything that asks for sleep or waking has come last. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stoker_api::tenant::Hibernation;
use stoker_api::v1alpha1::{HibernationReason, HibernationState, HibernationStatus};

use HibernationReason::{ByHand, Connection, Idle, Schedule};
use HibernationState::{Asleep, Awake};

/// What is seen from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Somebody is connecting.
    pub(super) wanted: bool,
    /// When somebody last asked anything, as far as is known.
    pub(super) activity: Option<Timestamp>,
    /// Whether that is known for now, and not from a while ago.
    pub(super) is_fresh: bool,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) status: HibernationStatus,
    /// When to look again.
    pub(super) look_at: Option<Timestamp>,
    /// Whether it hangs on who was there lately.
    pub(super) asks: bool,
}

/// What follows at `now` on what was `recorded` and what is seen: of all times that have come since, the last one counts, and what is so
/// already stays as it is. At the same time waking counts.
pub(super) fn next(
    plan: &Hibernation,
    recorded: &HibernationStatus,
    seen: Seen,
    now: Timestamp,
) -> Step {
    // A clock that goes back lets nothing happen twice.
    let since = recorded.since.0;
    let (zone, last) = (&plan.zone, |at: Option<Timestamp>| {
        at.filter(|at| *at > since && *at <= now)
    });
    let of_line = |line: &Option<stoker_api::Cron>| line.as_ref()?.last(zone, since, now);
    let called = (seen.wanted && plan.wake_on_connection).then_some(now);
    let came = [
        (of_line(&plan.sleep), Asleep, Schedule),
        (last(plan.sleep_at), Asleep, ByHand),
        (of_line(&plan.wake), Awake, Schedule),
        (last(plan.wake_at), Awake, ByHand),
        (called, Awake, Connection),
    ];
    let came = came
        .into_iter()
        .filter_map(|(at, state, reason)| Some((at?, state, reason)));
    let latest = came.max_by_key(|(at, ..)| *at);
    let mut status = match latest {
        Some((at, state, reason)) if state != recorded.state => HibernationStatus {
            state,
            since: Time(at),
            reason,
            until: None,
            wakes_on_connection: false,
        },
        _ => recorded.clone(),
    };
    let idle = idle_at(plan, &status, seen.activity);
    let is_due = idle.is_some_and(|at| at <= now);
    let asks = is_due && !seen.is_fresh;
    if is_due && seen.is_fresh {
        status = HibernationStatus {
            state: Asleep,
            since: Time(now),
            reason: Idle,
            until: None,
            wakes_on_connection: false,
        };
    }
    let until = until(plan, status.state, now);
    status.until = until.map(Time);
    status.wakes_on_connection = status.state == Asleep && plan.wake_on_connection;
    let idle = idle.filter(|at| *at > now && status.state == Awake);
    Step {
        status,
        look_at: until.into_iter().chain(idle).min(),
        asks,
    }
}

/// When it will have been idle for long enough, if nobody comes.
fn idle_at(
    plan: &Hibernation,
    status: &HibernationStatus,
    activity: Option<Timestamp>,
) -> Option<Timestamp> {
    let idle_after = plan.idle_after.filter(|_| status.state == Awake)?;
    let since = status.since.0.max(activity.unwrap_or(status.since.0));
    since.checked_add(idle_after).ok()
}

/// When the clock alone changes that.
fn until(plan: &Hibernation, state: HibernationState, now: Timestamp) -> Option<Timestamp> {
    let (line, by_hand) = match state {
        Awake => (&plan.sleep, plan.sleep_at),
        Asleep => (&plan.wake, plan.wake_at),
    };
    let by_line = line.as_ref().and_then(|line| line.next(&plan.zone, now));
    by_hand
        .filter(|at| *at > now)
        .into_iter()
        .chain(by_line)
        .min()
}

#[cfg(test)]
mod tests;
