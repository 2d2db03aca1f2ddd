//! Conditions as Kubernetes means them: the time changes only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message of a condition: `maxLength` of `metav1.Condition`.
const MESSAGE_LIMIT: usize = 32_768;

/// Sets the condition `type_` to `True` or `False`. `lastTransitionTime` becomes `now` only when
/// the status changes or the condition is new; a message beyond 32 KiB is cut.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let mut new = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: cut(message, MESSAGE_LIMIT),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|known| known.type_ == type_) {
        Some(known) => {
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.clone();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

/// The condition of this type, if it is there.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|found| found.type_ == type_)
}

/// Whether two lists of conditions say the same, whatever their times and their order.
#[must_use]
pub fn equal_ignoring_times(one: &[Condition], other: &[Condition]) -> bool {
    let same = |a: &Condition, b: &Condition| {
        a.type_ == b.type_
            && a.status == b.status
            && a.reason == b.reason
            && a.message == b.message
            && a.observed_generation == b.observed_generation
    };
    one.len() == other.len() && one.iter().all(|a| other.iter().any(|b| same(a, b)))
}

/// The text, or as much of it as fits `limit` bytes with an ellipsis at the end.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", false, "Starting", "a", 1, at(1));
        set(&mut conditions, "Ready", false, "Waiting", "b", 2, at(2));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        assert_eq!(conditions[0].reason, "Waiting");
        assert_eq!(conditions[0].observed_generation, Some(2));
        set(&mut conditions, "Ready", true, "Up", "", 2, at(3));
        assert_eq!(conditions[0].last_transition_time.0, at(3));
    }

    #[test]
    fn equality_ignores_times_and_order_and_nothing_else() {
        let mut one = Vec::new();
        set(&mut one, "Ready", true, "Up", "", 1, at(1));
        set(&mut one, "Reached", true, "Up", "", 1, at(1));
        let mut other = Vec::new();
        set(&mut other, "Reached", true, "Up", "", 1, at(9));
        set(&mut other, "Ready", true, "Up", "", 1, at(9));
        assert!(equal_ignoring_times(&one, &other));
        set(&mut other, "Ready", true, "Up", "changed", 1, at(9));
        assert!(!equal_ignoring_times(&one, &other));
    }

    #[test]
    fn a_cut_text_fits_and_breaks_no_character() {
        assert_eq!(cut("short", 10), "short");
        let text = cut(&"ä".repeat(600), 1024);
        assert!(text.len() <= 1024 && text.ends_with('…'), "{}", text.len());
    }
}
