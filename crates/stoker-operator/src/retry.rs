//! When to try again: exponential backoff with jitter, per object.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use crate::tenant::state::lock;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_mins(5);

/// Failures in a row, per object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Hash + Eq> Backoff<K> {
    /// Counts one more failure of `key` and returns how long to wait: 0.5 s doubling to 5 min, with
    /// up to a quarter of jitter so that a fleet does not come back in step.
    pub fn after_failure(&self, key: K) -> Duration {
        let mut failures = lock(&self.failures);
        let count = failures.entry(key).or_insert(0);
        *count = count.saturating_add(1);
        delay(*count, jitter())
    }

    /// Forgets `key`'s failures.
    pub fn succeeded(&self, key: &K) {
        lock(&self.failures).remove(key);
    }
}

fn delay(failures: u32, jitter: u8) -> Duration {
    let base = FIRST
        .saturating_mul(1 << (failures.saturating_sub(1)).min(12))
        .min(LAST);
    base + base.mul_f64(f64::from(jitter) / 1024.0)
}

fn jitter() -> u8 {
    let mut byte = [0];
    // Without randomness every object merely waits the same time.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_five_minutes() {
        assert_eq!(delay(1, 0), Duration::from_millis(500));
        assert_eq!(delay(2, 0), Duration::from_secs(1));
        assert_eq!(delay(5, 0), Duration::from_secs(8));
        assert_eq!(delay(40, 0), LAST);
        assert!(delay(1, 255) < Duration::from_millis(626));
    }

    #[test]
    fn success_forgets_failures() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_failure("a");
        }
        backoff.succeeded(&"a");
        assert!(backoff.after_failure("a") < Duration::from_secs(1));
    }
}
