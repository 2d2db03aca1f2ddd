//! When somebody last asked anything of the API server: not nodes, not pods and not the control plane itself, about whose
//! requests the API server does not ask here. In memory; the operator asks through the API server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::guard::{Answer, Review};

/// The user about whom the operator asks: what is told is the reason of an answer without opinion.
pub const PROBE: &str = "stoker-activity-probe";
/// What the reason begins with; seconds since 1970 follow.
pub const REASON: &str = "stoker-activity=";

/// When that was, in seconds since 1970.
#[derive(Debug)]
pub struct Activity(AtomicU64);

impl Default for Activity {
    /// Whoever asked before this process began is not known: as if it were now.
    fn default() -> Self {
        Self(AtomicU64::new(now()))
    }
}

impl Activity {
    /// Answers without an opinion, and notes that somebody was there.
    #[must_use]
    pub fn answer(&self, review: &Review) -> Answer {
        if review.user() == PROBE {
            let last = self.0.load(Ordering::Relaxed);
            return Answer::without_opinion(format!("{REASON}{last}"));
        }
        self.0.fetch_max(now(), Ordering::Relaxed);
        Answer::without_opinion(String::new())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_asks_is_noted_and_the_probe_is_told_when_that_was() {
        let activity = Activity(AtomicU64::new(7));
        let of = |user: &str| {
            let review =
                json!({ "spec": { "user": user, "resourceAttributes": { "verb": "delete" } } });
            let answer = activity.answer(&serde_json::from_value(review).unwrap());
            serde_json::to_value(answer).unwrap()["status"].clone()
        };
        let probed = of(PROBE);
        assert_eq!(probed["reason"], "stoker-activity=7");
        for status in [probed, of("jane")] {
            assert_eq!(
                (&status["allowed"], &status["denied"]),
                (&json!(false), &json!(false))
            );
        }
        assert!(activity.0.load(Ordering::Relaxed) > 7);
    }
}
