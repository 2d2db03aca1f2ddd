//! How long to wait before the next dial.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);
/// What is lost is dialled again within this time.
const MOMENT: Duration = Duration::from_millis(200);

/// Doubles, with a random part, so that a thousand nodes do not dial in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let whole = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + part_of(whole / 2)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A short while.
    pub(super) fn moment() -> Duration {
        part_of(MOMENT)
    }
}

/// Without random bytes, the whole.
fn part_of(whole: Duration) -> Duration {
    let mut byte = [255];
    let _ = getrandom::fill(&mut byte);
    whole * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_ten_seconds_and_begins_anew() {
        let mut backoff = Backoff::default();
        let mut longest = FIRST;
        for _ in 0..20 {
            let next = backoff.next();
            assert!(
                next >= longest / 2 && next <= longest,
                "{next:?} of {longest:?}"
            );
            longest = (longest * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
