//! How long to wait before the next dial.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);
/// What is lost is dialled again within this time.
const MOMENT: Duration = Duration::from_millis(200);

/// How often a server that is known already may answer in place of the one that is looked for, before dials become rare: which of
/// several answers is chance.
const DRAWS: u32 = 20;
/// Doublings until then: 0.8 s.
const DOUBLINGS: u32 = 4;

/// Doubles, with a random part, so that a thousand nodes do not dial in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    draws: u32,
}

impl Backoff {
    /// After a failure.
    pub(super) fn next(&mut self) -> Duration {
        let wait = doubled(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// After another server has answered than the one that is looked for.
    pub(super) fn next_draw(&mut self) -> Duration {
        let rare = self.draws.saturating_sub(DRAWS);
        let wait = doubled(self.draws.min(DOUBLINGS) + rare);
        self.draws = self.draws.saturating_add(1);
        wait
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// A short while.
    pub(super) fn moment() -> Duration {
        part_of(MOMENT)
    }
}

fn doubled(times: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
    whole / 2 + part_of(whole / 2)
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

    #[test]
    fn many_draws_come_within_seconds_and_then_few() {
        let mut backoff = Backoff::default();
        let soon: Duration = (0..DRAWS).map(|_| backoff.next_draw()).sum();
        assert!(soon < Duration::from_secs(14), "{soon:?}");
        let later: Duration = (0..DRAWS).map(|_| backoff.next_draw()).sum();
        assert!(later > Duration::from_secs(70), "{later:?}");
        backoff.reset();
        assert!(backoff.next_draw() <= FIRST);
    }
}
