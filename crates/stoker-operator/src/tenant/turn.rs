//! A turn to work on the management side.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::Metrics;

/// A pool that answers does so in much less.
const PATIENCE: Duration = Duration::from_millis(500);

/// One of the turns that bound the work on the management side, given back while somebody else is waited for.
pub(super) struct Turn<'a> {
    work: &'a Semaphore,
    metrics: &'a Metrics,
    held: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    /// Waits for a turn.
    pub(super) async fn of(work: &'a Semaphore, metrics: &'a Metrics) -> Self {
        // Closed never: the semaphore lives as long as the process.
        let held = metrics.turn(work).await;
        Self {
            work,
            metrics,
            held,
        }
    }

    /// Awaits what depends on a pool. When it takes long, others have the turn until it is done: tenants of a pool
    /// that hangs wait for themselves alone.
    pub(super) async fn awaiting<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.lending_after(PATIENCE, wait).await
    }

    /// Awaits other tenants of the same pool: who must wait at all lends the turn at once.
    pub(super) async fn queueing<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.lending_after(Duration::ZERO, wait).await
    }

    async fn lending_after<T>(&mut self, patience: Duration, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        if let Ok(done) = tokio::time::timeout(patience, wait.as_mut()).await {
            return done;
        }
        self.held = None;
        let done = wait.await;
        self.held = self.metrics.turn(self.work).await;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_long_lets_others_work() {
        let (work, metrics) = (Semaphore::new(1), Metrics::default());
        let mut turn = Turn::of(&work, &metrics).await;
        assert_eq!(work.available_permits(), 0);
        let others = async {
            tokio::time::sleep(PATIENCE / 2).await;
            let early = work.available_permits();
            tokio::time::sleep(PATIENCE).await;
            (early, work.available_permits())
        };
        let long = turn.awaiting(tokio::time::sleep(PATIENCE * 4));
        assert_eq!(tokio::join!(long, others).1, (0, 1));
        assert_eq!(work.available_permits(), 0, "it has its turn again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_queues_lets_others_work_at_once_unless_there_is_no_queue() {
        let (work, metrics) = (Semaphore::new(1), Metrics::default());
        let mut turn = Turn::of(&work, &metrics).await;
        turn.queueing(async { assert_eq!(work.available_permits(), 0) })
            .await;
        let others = async {
            tokio::time::sleep(PATIENCE / 10).await;
            work.available_permits()
        };
        let long = turn.queueing(tokio::time::sleep(PATIENCE));
        assert_eq!(tokio::join!(long, others).1, 1);
    }
}
