//! What one tenant may take, so that its flood leaves others alone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Limits of every tenant, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: u32,
    /// Handshakes per second, in the long run.
    pub handshakes: u32,
    /// Handshakes at once after a pause.
    pub burst: u32,
    /// How long a handshake over the rate is held back; one that would have to wait longer is refused. A thousand
    /// kubelets that come back at once are let in one after the other.
    pub patience: Duration,
}

/// Turns at a steady rate, with a burst (GCRA): one number says when the bucket would be full again.
#[derive(Debug, Default)]
pub struct Turns {
    /// In nanoseconds of the caller's clock.
    full_again: AtomicU64,
}

impl Turns {
    /// Takes a turn: how long to wait for it, `None` when that is beyond the patience and no turn is taken. `now` is in
    /// nanoseconds of any clock that does not go back.
    pub fn take(&self, now: u64, limits: &Limits) -> Option<Duration> {
        let interval = 1_000_000_000 / u64::from(limits.handshakes.max(1));
        let burst = interval * u64::from(limits.burst.max(1));
        let longest = u64::try_from(limits.patience.as_nanos()).unwrap_or(u64::MAX);
        let taken = |full_again: u64| {
            let after = full_again.max(now) + interval;
            (after.saturating_sub(now + burst) <= longest).then_some(after)
        };
        let before = self
            .full_again
            .try_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .ok()?;
        let after = before.max(now) + interval;
        Some(Duration::from_nanos(after.saturating_sub(now + burst)))
    }
}

/// A number of things at the same time.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU32,
}

impl Places {
    /// Takes one of `limit` places; false when all are taken. Whoever takes one [leaves](Self::leave).
    pub fn enter(&self, limit: u32) -> bool {
        let one_more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// Gives it back.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        connections: 10,
        handshakes: 100,
        burst: 20,
        patience: Duration::from_millis(50),
    };
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_then_some_wait_then_they_are_refused() {
        let turns = Turns::default();
        let waits: Vec<_> = (0..30).map(|_| turns.take(SECOND, &LIMITS)).collect();
        assert!(waits[..20].iter().all(|wait| *wait == Some(Duration::ZERO)));
        assert_eq!(waits[20], Some(Duration::from_millis(10)));
        assert_eq!(waits[24], Some(Duration::from_millis(50)));
        assert!(waits[25..].iter().all(Option::is_none));
        // What was refused took nothing.
        assert_eq!(
            turns.take(SECOND + SECOND / 100, &LIMITS),
            Some(Duration::from_millis(50))
        );
        assert_eq!(turns.take(10 * SECOND, &LIMITS), Some(Duration::ZERO));
    }

    #[test]
    fn places_are_taken_up_to_the_limit_and_given_back() {
        let places = Places::default();
        assert!((0..3).all(|_| places.enter(3)));
        assert!(!places.enter(3));
        places.leave();
        assert_eq!(places.taken(), 2);
        assert!(places.enter(3) && !places.enter(3));
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_do_more_pass_than_rate_and_burst(steps in prop::collection::vec(0u64..30_000_000, 1..400)) {
            let turns = Turns::default();
            let mut now = SECOND;
            let mut passed: Vec<u64> = Vec::new();
            for step in steps {
                now += step;
                if let Some(wait) = turns.take(now, &LIMITS) {
                    passed.push(now + u64::try_from(wait.as_nanos()).unwrap());
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let allowed = 20 + (end - begin) / (SECOND / 100) + 1;
                    prop_assert!(u64::try_from(last - first + 1).unwrap() <= allowed);
                }
            }
        }
    }
}
