//! When each `DataStore` is to be looked at next. Until then tenants that come and go are merely counted, which asks
//! nothing of its pool.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use stoker_api::v1alpha1::DataStoreStatus;
use tokio::time::Instant;

use crate::tenant::state::lock;

/// A look begun and not done: it is due again after this at the latest.
const LONGEST: Duration = Duration::from_mins(5);

/// The last look at each `DataStore`.
#[derive(Default)]
pub struct Looks {
    by_name: Mutex<HashMap<String, Looked>>,
}

struct Looked {
    due: Instant,
    /// The status as this process last wrote it: the cached object may lag behind.
    status: DataStoreStatus,
}

impl Looks {
    /// A look is due at once, even if one is under way.
    pub fn ask(&self, name: &str) {
        lock(&self.by_name).remove(name);
    }

    /// The status as last written and the time until the next look; `None` when that is due.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<(DataStoreStatus, Duration)> {
        let looks = lock(&self.by_name);
        let looked = looks.get(name)?;
        let wait = looked.due.checked_duration_since(Instant::now())?;
        (!wait.is_zero()).then(|| (looked.status.clone(), wait))
    }

    /// A look begins.
    pub fn begin(&self, name: &str) {
        let looked = Looked {
            due: Instant::now() + LONGEST,
            status: DataStoreStatus::default(),
        };
        lock(&self.by_name).insert(name.to_owned(), looked);
    }

    /// A look has ended with this status, and the next is due after `wait`, unless one was asked for meanwhile.
    pub fn done(&self, name: &str, status: DataStoreStatus, wait: Duration) {
        let due = Instant::now() + wait;
        if let Some(looked) = lock(&self.by_name).get_mut(name) {
            *looked = Looked { due, status };
        }
    }

    /// Tenants were counted.
    pub fn counted(&self, name: &str, used_by: Vec<String>) {
        if let Some(looked) = lock(&self.by_name).get_mut(name) {
            looked.status.used_by = used_by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_mins(1);

    fn due(looks: &Looks) -> bool {
        looks.last("a").is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_due_at_first_after_its_time_and_when_asked_for() {
        let looks = Looks::default();
        assert!(due(&looks));
        looks.begin("a");
        looks.done("a", DataStoreStatus::default(), WAIT);
        assert!(!due(&looks));
        tokio::time::advance(WAIT / 2).await;
        assert_eq!(looks.last("a").unwrap().1, WAIT / 2);
        looks.counted("a", vec!["a/one".to_owned()]);
        assert_eq!(looks.last("a").unwrap().0.used_by, ["a/one"]);
        tokio::time::advance(WAIT / 2).await;
        assert!(due(&looks));
        looks.begin("a");
        looks.done("a", DataStoreStatus::default(), WAIT);
        looks.ask("a");
        assert!(due(&looks));
    }

    #[test]
    fn what_is_asked_for_while_a_look_is_under_way_is_not_lost() {
        let looks = Looks::default();
        looks.begin("a");
        looks.ask("a");
        looks.done("a", DataStoreStatus::default(), WAIT);
        assert!(due(&looks));
    }
}
