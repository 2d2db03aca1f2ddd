//! Requests of machines that may be unanswered: how many are looked at together, and how soon.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use stoker_kube::Change;

use crate::tenant::damper::Damper;

/// Requests that are looked at together; more wait in the watch.
const ROOM: usize = 256;
/// Of so many that are settled the watch's later events are known for that.
const REMEMBERED: usize = 4 * ROOM;
/// Machines come in crowds.
pub(super) const BATCH: Duration = Duration::from_millis(50);

/// By name, with the uid.
#[derive(Default)]
pub(super) struct Requests {
    pending: BTreeMap<String, Option<String>>,
    settled: HashSet<String>,
    damper: Damper,
}

impl Requests {
    /// Whether no more are to be noted until some are settled.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.pending.keys().cloned().collect()
    }

    /// Returns how soon there is something to look at, if it is a request that nobody knew of: only such slow down the
    /// answers, and neither our own answers nor what a tenant does to a request that waits.
    pub(super) fn note(&mut self, change: &Change, now: Instant) -> Option<Duration> {
        let (name, uid) = (change.key.name(), change.metadata.uid.clone());
        if change.deleted {
            if self.pending.get(name) == Some(&uid) {
                self.pending.remove(name);
            }
            uid.map(|uid| self.settled.remove(&uid));
            return None;
        }
        if uid.as_ref().is_some_and(|uid| self.settled.contains(uid)) {
            return None;
        }
        let known = self.pending.insert(name.to_owned(), uid.clone());
        (known != Some(uid)).then(|| BATCH.max(self.damper.delay(now)))
    }

    /// A request was answered, or is not ours to answer: nothing more comes of it.
    pub(super) fn settle(&mut self, name: &str) {
        if let Some(Some(uid)) = self.pending.remove(name) {
            if self.settled.len() >= REMEMBERED {
                self.settled.clear();
            }
            self.settled.insert(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use stoker_kube::ObjectKey;

    use super::*;

    fn change(name: &str, uid: &str, deleted: bool) -> Change {
        Change {
            key: ObjectKey::of::<CertificateSigningRequest>(None, name),
            metadata: ObjectMeta {
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            },
            deleted,
        }
    }

    fn there(name: &str, uid: &str) -> Change {
        change(name, uid, false)
    }

    #[test]
    fn none_is_dropped_and_those_beyond_the_room_wait_in_the_watch() {
        let (mut requests, now) = (Requests::default(), Instant::now());
        for number in 0..=ROOM {
            assert_eq!(requests.is_full(), number == ROOM);
            let name = format!("csr-{number}");
            requests.note(&there(&name, &name), now);
        }
        assert_eq!(requests.names().len(), ROOM + 1);
        requests.settle("csr-0");
        requests.settle("csr-1");
        assert!(!requests.is_full());
    }

    #[test]
    fn neither_our_answers_nor_requests_that_wait_slow_down_the_next() {
        let (mut requests, now) = (Requests::default(), Instant::now());
        for number in 0..60 {
            let name = format!("csr-{number}");
            assert_eq!(requests.note(&there(&name, &name), now), Some(BATCH));
            for _ in 0..3 {
                assert_eq!(requests.note(&there(&name, &name), now), None, "it waits");
            }
            requests.settle(&name);
            for _ in 0..3 {
                assert_eq!(requests.note(&there(&name, &name), now), None, "answered");
            }
        }
        assert!(requests.is_empty());
        assert_eq!(requests.note(&there("next", "next"), now), Some(BATCH));
        let storm = (0..100).map(|number| {
            let name = format!("more-{number}");
            requests.note(&there(&name, &name), now)
        });
        assert!(storm.max() > Some(Some(BATCH)));
    }

    #[test]
    fn a_request_made_anew_under_a_name_is_another() {
        let (mut requests, now) = (Requests::default(), Instant::now());
        assert!(requests.note(&there("csr", "1"), now).is_some());
        requests.settle("csr");
        assert!(requests.note(&there("csr", "2"), now).is_some());
        assert_eq!(requests.note(&change("csr", "1", true), now), None);
        assert_eq!(requests.names(), ["csr"]);
        assert_eq!(requests.note(&change("csr", "2", true), now), None);
        assert!(requests.is_empty());
    }
}
