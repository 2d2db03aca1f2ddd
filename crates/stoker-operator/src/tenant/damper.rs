//! How fast a tenant that changes our objects is answered: at once as a rule, slower and slower while it does not
//! stop. Healing costs the operator a pass and a write each time; a tenant must not make that its neighbours' cost.

use std::time::{Duration, Instant};

/// Changes in a row that are answered at once.
const AT_ONCE: u32 = 64;
/// The first pause after that; it doubles.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(15);
/// So long without a change, and all is forgotten.
const CALM: Duration = Duration::from_mins(1);

/// Counts one tenant's changes.
#[derive(Debug, Default)]
pub(crate) struct Damper {
    count: u32,
    last: Option<Instant>,
}

impl Damper {
    /// How long the answer to a change that was seen `now` must wait.
    pub(crate) fn delay(&mut self, now: Instant) -> Duration {
        let calm = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.count = if calm {
            1
        } else {
            self.count.saturating_add(1)
        };
        self.last = Some(now);
        match self.count.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(beyond) => FIRST.saturating_mul(1 << beyond.min(16)).min(LAST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_at_once_and_a_storm_slower_and_slower() {
        let (mut damper, start) = (Damper::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(damper.delay(start), Duration::ZERO);
        }
        assert_eq!(damper.delay(start), FIRST);
        assert_eq!(damper.delay(start), FIRST * 2);
        for _ in 0..20 {
            damper.delay(start);
        }
        assert_eq!(damper.delay(start), LAST);
        assert_eq!(damper.delay(start + CALM), Duration::ZERO);
    }
}
