//! Many events that call for one pass: it is asked for once, a moment after the first of them, unless one has begun by then.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::tenant::state::lock;

/// Asks for passes after a fixed lag. Later events do not prolong it.
pub struct Soon<K> {
    wake: UnboundedSender<K>,
    lag: Duration,
    /// What is asked for, and the timer of each.
    asked: Arc<Mutex<HashMap<K, AbortHandle>>>,
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
        let mut waiting = lock(&self.asked);
        if waiting.contains_key(&object) {
            return;
        }
        let (wake, lag, asked) = (self.wake.clone(), self.lag, self.asked.clone());
        let key = object.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(lag).await;
            if lock(&asked).remove(&object).is_some() {
                // Nobody listens any more only while the process ends.
                let _ = wake.send(object);
            }
        });
        waiting.insert(key, timer.abort_handle());
    }
}

impl<K: Hash + Eq> Soon<K> {
    /// A pass over `object` begins: it looks at all that was a reason to ask for one.
    pub fn met(&self, object: &K) {
        if let Some(timer) = lock(&self.asked).remove(object) {
            timer.abort();
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_begins_meanwhile_is_the_one_asked_for() {
        let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
        let lag = Duration::from_millis(50);
        let soon = Soon::new(wake, lag);
        soon.ask("a");
        soon.ask("b");
        tokio::time::sleep(lag / 2).await;
        soon.met(&"a");
        let again = tokio::time::Instant::now();
        soon.ask("a");
        assert_eq!(woken.recv().await, Some("b"));
        assert_eq!(woken.recv().await, Some("a"));
        assert_eq!(again.elapsed(), lag, "by a timer of its own");
        assert!(woken.try_recv().is_err());
    }
}
