//! When to wait for more before the next read.
//!
//! Whoever sends much sends it in pieces of 16 or 32 KiB, each of which wakes both ends, and the API server. A millisecond
//! later there are several of them, for one.

use std::time::Duration;

use tokio::time::Instant;

/// Over this time it is looked at how much comes.
const SPAN: Duration = Duration::from_millis(50);
/// So many bytes in it are a flow: 20 MiB/s. Answers of a busy server, however large, come slower.
const MUCH: usize = 1 << 20;
/// What is smaller is the end of something, which somebody waits for.
const PIECE: usize = 8 << 10;
/// For how long more is waited for. What ends a flow arrives so much later, or twice that: timers count milliseconds.
const REST: Duration = Duration::from_millis(1);

/// How much one direction of a stream brings.
#[derive(Debug)]
pub(crate) struct Flow {
    since: Instant,
    bytes: usize,
    flows: bool,
}

impl Flow {
    /// Nothing has come yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            flows: false,
        }
    }

    /// Takes note of a read; says how long to wait before the next one, once nothing is left to read.
    pub(crate) fn read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        if now.duration_since(self.since) > SPAN {
            self.flows = self.bytes >= MUCH;
            self.bytes = 0;
            self.since = now;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        (self.flows && bytes >= PIECE).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many reads, of one size and one distance, are followed by a rest.
    fn rests(reads: usize, bytes: usize, apart: Duration) -> usize {
        let mut now = Instant::now();
        let mut flow = Flow::new(now);
        let mut rest = |_: &usize| {
            now += apart;
            flow.read(bytes, now).is_some()
        };
        (0..reads).filter(&mut rest).count()
    }

    #[test]
    fn only_a_flow_is_waited_for() {
        let micros = Duration::from_micros;
        // From the second span on.
        assert!(rests(10_000, 32 << 10, micros(200)) > 9_700);
        // However many small ones there are, and however large what comes now and then is.
        assert_eq!(rests(100_000, 278, micros(80)), 0);
        assert_eq!(rests(100_000, 1_000, micros(10)), 0);
        assert_eq!(rests(10_000, 16 << 10, micros(1_000)), 0);
    }

    #[test]
    fn the_end_of_a_flow_is_not_kept_waiting_and_the_next_one_begins_anew() {
        let mut now = Instant::now();
        let mut flow = Flow::new(now);
        for _ in 0..200 {
            now += Duration::from_millis(1);
            flow.read(64 << 10, now);
        }
        assert_eq!(flow.read(64 << 10, now), Some(REST));
        assert_eq!(flow.read(100, now), None);
        now += SPAN * 2;
        assert_eq!(flow.read(100, now), None);
        now += SPAN * 2;
        assert_eq!(flow.read(64 << 10, now), None);
    }
}
