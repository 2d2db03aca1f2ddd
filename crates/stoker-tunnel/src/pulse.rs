//! Whether the other end of a connection still answers, and how far it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, timeout};

/// Between two pings.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// An end that has not answered a ping for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// An end that has not answered for so long is asked last.
const DOUBT: Duration = Duration::from_secs(1);

/// The other end does not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer to a ping for {} s", PATIENCE.as_secs())]
pub struct Silent;

/// What pings have told. Shared with whoever chooses between ends.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Beat>);

#[derive(Debug, Default, Clone, Copy)]
struct Beat {
    round_trip: Option<Duration>,
    asked: Option<Instant>,
}

impl Pulse {
    /// One ping, and its answer.
    ///
    /// # Errors
    /// There is none.
    pub async fn beat(&self, ping: &mut PingPong) -> Result<Duration, Silent> {
        let asked = Instant::now();
        self.set(|beat| beat.asked = Some(asked));
        match timeout(PATIENCE, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {
                let took = asked.elapsed();
                self.set(|beat| {
                    beat.asked = None;
                    // Smoothed as TCP does it.
                    beat.round_trip =
                        Some(beat.round_trip.map_or(took, |old| (old * 7 + took) / 8));
                });
                Ok(took)
            }
            Ok(Err(_)) | Err(_) => Err(Silent),
        }
    }

    /// Time from a ping to its answer; unknown counts as far.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.get().round_trip.unwrap_or(PATIENCE)
    }

    /// Whether a ping waits for its answer unusually long.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        self.get()
            .asked
            .is_some_and(|asked| asked.elapsed() > DOUBT)
    }

    fn get(&self) -> Beat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Beat)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
