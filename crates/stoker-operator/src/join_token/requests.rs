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
/// Until one that could not be answered is looked at again; it doubles.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// One that something inside the tenant has kept from being answered for so long is let be, until it changes or the watch begins
/// anew: so long a kubelet waits (`k8s.io/client-go/util/certificate`).
const ABANDONED: Duration = Duration::from_mins(15);

/// One that may be unanswered.
struct Pending {
    uid: Option<String>,
    due: Instant,
    pause: Duration,
    /// Since when something inside the tenant keeps it from being answered.
    kept: Option<Instant>,
}

/// By name.
#[derive(Default)]
pub(super) struct Requests {
    pending: BTreeMap<String, Pending>,
    settled: HashSet<String>,
    damper: Damper,
}

impl Requests {
    /// Whether no more are to be noted until some are settled.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= ROOM
    }

    /// Those to be looked at. One that has waited for a while is looked at with others rather than alone: each look costs
    /// a list of the tokens.
    pub(super) fn due(&self, now: Instant) -> Vec<String> {
        let due = |pending: &Pending| pending.due <= now + BATCH.max(pending.pause / 2);
        let pending = self.pending.iter();
        let due = pending.filter(|(_, pending)| due(pending));
        due.map(|(name, _)| name.clone()).collect()
    }

    /// When the next is to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.due).min()
    }

    /// Returns how soon there is something to look at, if it is a request that nobody knew of: only such slow down the
    /// answers, and neither our own answers nor what a tenant does to a request that waits.
    pub(super) fn note(&mut self, change: &Change, now: Instant) -> Option<Duration> {
        let (name, uid) = (change.key.name(), change.metadata.uid.clone());
        if change.deleted {
            if self.pending.get(name).is_some_and(|known| known.uid == uid) {
                self.pending.remove(name);
            }
            uid.map(|uid| self.settled.remove(&uid));
            return None;
        }
        if uid.as_ref().is_some_and(|uid| self.settled.contains(uid)) {
            return None;
        }
        if self.pending.get(name).is_some_and(|known| known.uid == uid) {
            return None;
        }
        let delay = BATCH.max(self.damper.delay(now));
        let pending = Pending {
            uid,
            due: now + delay,
            pause: Duration::ZERO,
            kept: None,
        };
        self.pending.insert(name.to_owned(), pending);
        Some(delay)
    }

    /// A request could not be answered; `inside` says whether something of the tenant kept it.
    pub(super) fn again(&mut self, name: &str, inside: bool, now: Instant) {
        let Some(pending) = self.pending.get_mut(name) else {
            return;
        };
        pending.kept = inside.then(|| pending.kept.unwrap_or(now));
        if pending.kept.is_some_and(|since| now >= since + ABANDONED) {
            self.pending.remove(name);
            return;
        }
        pending.pause = (pending.pause * 2).clamp(AGAIN, AGAIN_AT_MOST);
        pending.due = now + pending.pause;
    }

    /// A request was answered, or is not ours to answer: nothing more comes of it.
    pub(super) fn settle(&mut self, name: &str) {
        if let Some(uid) = self.pending.remove(name).and_then(|known| known.uid) {
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
        let later = now + Duration::from_mins(1);
        assert_eq!(requests.due(later).len(), ROOM + 1);
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
        assert_eq!(requests.next(), None);
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
        assert_eq!(requests.due(now + BATCH), ["csr"]);
        assert_eq!(requests.note(&change("csr", "2", true), now), None);
        assert_eq!(requests.next(), None);
    }

    #[test]
    fn one_that_cannot_be_answered_is_asked_about_ever_more_rarely_and_not_for_ever() {
        let (mut requests, begun) = (Requests::default(), Instant::now());
        requests.note(&there("csr", "1"), begun);
        let mut looks = 0;
        while let Some(due) = requests.next() {
            assert_eq!(requests.due(due), ["csr"]);
            let after = due.duration_since(begun);
            assert!(after <= BATCH + ABANDONED + AGAIN_AT_MOST, "{after:?}");
            looks += 1;
            requests.again("csr", true, due);
        }
        assert!((30..40).contains(&looks), "{looks}");
        // Whatever happens to it then is a reason to look.
        assert!(requests.note(&there("csr", "1"), begun).is_some());
    }

    #[test]
    fn what_our_own_side_has_kept_is_not_given_up() {
        let (mut requests, mut now) = (Requests::default(), Instant::now());
        requests.note(&there("csr", "1"), now);
        for minute in 0..30 {
            requests.again("csr", minute % 10 != 0, now);
            now += Duration::from_mins(1);
        }
        assert!(requests.next().is_some());
    }

    #[test]
    fn those_that_wait_long_are_looked_at_together() {
        let (mut requests, mut now) = (Requests::default(), Instant::now());
        for number in 0..8 {
            let name = format!("csr-{number}");
            requests.note(&there(&name, &name), now);
            now += Duration::from_secs(1);
        }
        let begun = now;
        let mut looks = 0;
        while let Some(due) = requests.next().filter(|due| *due < begun + ABANDONED) {
            looks += 1;
            for name in requests.due(due) {
                requests.again(&name, false, due);
            }
        }
        assert!(looks < 60, "{looks}");
    }
}
