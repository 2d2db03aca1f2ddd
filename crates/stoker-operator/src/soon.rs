//! Many events that call for one pass: it is asked for once, a moment after the first of them, unless one has begun by then.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::tenant::state::lock;

/// Asks for passes after a fixed lag. Later events do not prolong it.
pub struct Soon<K> {
    wake: UnboundedSender<K>,
    lag: Duration,
    asked: Arc<Mutex<Asked<K>>>,
}

struct Asked<K> {
    /// What is asked for, and by which timer.
    waiting: HashMap<K, u64>,
    timers: u64,
}

impl<K: Hash + Eq + Clone + Send + 'static> Soon<K> {
    /// Asks through `wake`.
    #[must_use]
    pub fn new(wake: UnboundedSender<K>, lag: Duration) -> Self {
        Self {
            wake,
            lag,
            asked: Arc::new(Mutex::new(Asked {
                waiting: HashMap::new(),
                timers: 0,
            })),
        }
    }

    /// Asks for a pass over `object` after the lag.
    pub fn ask(&self, object: K) {
        let mut asked = lock(&self.asked);
        if asked.waiting.contains_key(&object) {
            return;
        }
        asked.timers += 1;
        let timer = asked.timers;
        asked.waiting.insert(object.clone(), timer);
        drop(asked);
        let (wake, lag, asked) = (self.wake.clone(), self.lag, self.asked.clone());
        tokio::spawn(async move {
            tokio::time::sleep(lag).await;
            let mut asked = lock(&asked);
            if asked.waiting.get(&object) == Some(&timer) {
                asked.waiting.remove(&object);
                // Nobody listens any more only while the process ends.
                let _ = wake.send(object);
            }
        });
    }
}

impl<K: Hash + Eq> Soon<K> {
    /// A pass over `object` begins: it looks at all that was a reason to ask for one.
    pub fn met(&self, object: &K) {
        lock(&self.asked).waiting.remove(object);
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
