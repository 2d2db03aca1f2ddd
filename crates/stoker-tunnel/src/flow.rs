//! When to wait for more before the next read.
//!
//! Whoever sends much sends it in pieces of 16 or 32 KiB, each of which wakes both ends, and the API server. A millisecond
//! later there are three of them, at a third of the cost.

use std::time::Duration;

use tokio::time::Instant;

/// So many bytes without a pause are a flow.
const MUCH: usize = 1 << 20;
/// What ends a flow.
const PAUSE: Duration = Duration::from_millis(10);
/// For how long more is waited for. What ends a flow arrives so much later, or twice that: timers count milliseconds.
const REST: Duration = Duration::from_millis(1);

/// How much one direction of a stream has brought without a pause.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    last: Option<Instant>,
    bytes: usize,
}

impl Flow {
    /// Takes note of a read; says how long to wait before the next one, once nothing is left to read.
    pub(crate) fn read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let paused = |last: Instant| now.duration_since(last) > PAUSE;
        if self.last.replace(now).is_some_and(paused) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        (self.bytes >= MUCH).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_without_a_pause_is_waited_for() {
        let mut flow = Flow::default();
        let mut now = Instant::now();
        for _ in 0..63 {
            now += Duration::from_millis(9);
            assert_eq!(flow.read(16 << 10, now), None);
        }
        assert_eq!(flow.read(16 << 10, now), Some(REST));
        assert_eq!(flow.read(1, now + PAUSE), Some(REST));
        assert_eq!(flow.read(16 << 10, now + PAUSE * 3), None);
    }
}
