//! Many events that call for one pass: it is asked for once, a moment after the first of them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::tenant::state::lock;

/// Asks for passes after a fixed lag. Later events do not prolong it.
pub struct Soon<K> {
    wake: UnboundedSender<K>,
    lag: Duration,
    asked: Arc<Mutex<HashSet<K>>>,
}

impl<K: Hash + Eq + Clone + Send + 'static> Soon<K> {
    /// Asks through `wake`.
    #[must_use]
    pub fn new(wake: UnboundedSender<K>, lag: Duration) -> Self {
        Self {
            wake,
            lag,
            asked: Arc::default(),
        }
    }

    /// Asks for a pass over `object` after the lag.
    pub fn ask(&self, object: K) {
        if !lock(&self.asked).insert(object.clone()) {
            return;
        }
        let (wake, lag, asked) = (self.wake.clone(), self.lag, self.asked.clone());
        tokio::spawn(async move {
            tokio::time::sleep(lag).await;
            lock(&asked).remove(&object);
            // Nobody listens any more only while the process ends.
            let _ = wake.send(object);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_events_are_one_pass_and_the_next_ones_another() {
        let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
        let soon = Soon::new(wake, Duration::from_millis(50));
        let asked = tokio::time::Instant::now();
        for _ in 0..3 {
            soon.ask("a");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(woken.recv().await, Some("a"));
        assert_eq!(asked.elapsed().as_millis(), 50);
        assert!(woken.try_recv().is_err());
        soon.ask("a");
        assert_eq!(woken.recv().await, Some("a"));
    }
}
