//! What we last applied and what was last seen of it, so that a pass that changes nothing sends
//! nothing and our own writes coming back in a watch wake nobody.
//!
//! One ledger per tenant and cluster side. A pass of that tenant and the watch that observes its
//! objects share it: events can arrive before the answer to the write that caused them, which is
//! why an object being written is marked as such.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::desired::{Desired, ObjectKey};
use crate::fingerprint::{Fingerprint, Marks};
use crate::observe::Change;

/// Per object: the digest of what was applied, the state the server answered with, and whether
/// anything else was seen since. About 250 bytes per object.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
    disturbances: AtomicU64,
}

/// Boxed: half of a map's places are empty.
type Entries = BTreeMap<ObjectKey, Box<Entry>>;

#[derive(Debug, Default)]
struct Entry {
    applied: Option<Applied>,
    /// A write of ours is on its way, or was given up half way.
    in_flight: Option<Flight>,
    /// The last thing seen that is not explained by what we applied: rarely there.
    seen: Option<Box<Seen>>,
}

#[derive(Debug)]
struct Applied {
    /// `None` after a failed write: what is stored is unknown.
    digest: Option<[u8; 32]>,
    fingerprint: Fingerprint,
    /// Labels, annotations, finalizers and owner references that we set.
    marks: Marks,
}

#[derive(Debug)]
struct Flight {
    /// The last state known before the write.
    before: Option<Box<Fingerprint>>,
}

#[derive(Debug)]
enum Seen {
    Alive(Fingerprint, Marks),
    Gone { uid: Box<str> },
}

/// What an observed change means to the owner of the object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observation {
    /// Our own write coming back, or a status change of a kind that has a generation.
    Echo,
    /// Somebody changed or deleted what we applied: the next pass applies it again.
    Changed,
    /// Not an object that this ledger has applied.
    Foreign,
}

impl Ledger {
    /// An empty ledger: the first pass applies everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the object was applied exactly so and nothing else was seen of it since.
    #[must_use]
    pub fn is_current(&self, desired: &Desired) -> bool {
        self.lock().get(desired.key()).is_some_and(|entry| {
            let applied = entry.applied.as_ref().and_then(|applied| applied.digest);
            entry.in_flight.is_none()
                && entry.seen.is_none()
                && applied.is_some_and(|digest| digest == *desired.digest())
        })
    }

    /// How often somebody else has changed what we applied, as far as was seen. Where nothing of ours has been given up
    /// or forgotten since, what was current at the same number is current.
    #[must_use]
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::Acquire)
    }

    /// From now on changes of the object are noticed: to be called before it is read, if what was read may be taken
    /// for what was applied.
    pub fn expect(&self, key: &ObjectKey) {
        self.lock().entry(key.clone()).or_default();
    }

    /// Whether the object was applied, or changes of it are [expected](Self::expect).
    #[must_use]
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Takes note of an observed change. While a write of that object is on its way the answer is
    /// [`Observation::Echo`]: [`crate::Writer::apply_all`] looks at it when the answer arrives.
    pub fn observe(&self, change: &Change) -> Observation {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&change.key) else {
            return Observation::Foreign;
        };
        let seen = Box::new(Seen::of(change));
        if entry.in_flight.is_some() {
            entry.seen = Some(seen);
            return Observation::Echo;
        }
        if entry.explains(&seen) {
            if entry.is_back_to_ours(&seen) {
                entry.seen = None;
            }
            return Observation::Echo;
        }
        entry.seen = Some(seen);
        self.disturbances.fetch_add(1, Ordering::AcqRel);
        Observation::Changed
    }

    /// The objects that this ledger has applied, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().keys().cloned().collect()
    }

    /// What this ledger has applied, and how the API server last answered.
    #[must_use]
    pub fn written(&self) -> Vec<(ObjectKey, Fingerprint)> {
        let entries = self.lock();
        let written = entries.iter().filter_map(|(key, entry)| {
            let applied = entry.applied.as_ref()?;
            Some((key.clone(), applied.fingerprint.clone()))
        });
        written.collect()
    }

    /// The uid of an object as the API server last answered.
    #[must_use]
    pub fn uid(&self, key: &ObjectKey) -> Option<String> {
        let entries = self.lock();
        let applied = entries.get(key)?.applied.as_ref()?;
        Some(applied.fingerprint.uid().to_owned())
    }

    /// Forgets an object: it was deleted on purpose.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// A write of the object is about to be sent. It overwrites whatever was seen so far.
    pub(crate) fn begin(&self, key: &ObjectKey) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        let before = match entry.seen.take().map(|seen| *seen) {
            Some(Seen::Alive(state, _)) => Some(state),
            Some(Seen::Gone { .. }) => None,
            None => entry.applied.as_ref().map(|a| a.fingerprint.clone()),
        };
        entry.in_flight = Some(Flight {
            before: before.map(Box::new),
        });
    }

    /// The write failed: what is stored is unknown, so the object is not current.
    pub(crate) fn abandon(&self, key: &ObjectKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.in_flight = None;
            if let Some(applied) = &mut entry.applied {
                applied.digest = None;
            }
        }
    }

    /// The write was answered with this state.
    pub(crate) fn record(&self, desired: &Desired, fingerprint: &Fingerprint) -> Recorded {
        let mut entries = self.lock();
        let entry = entries.entry(desired.key().clone()).or_default();
        let before = entry.in_flight.take().and_then(|flight| flight.before);
        entry.applied = Some(Applied {
            digest: Some(*desired.digest()),
            fingerprint: fingerprint.clone(),
            marks: Marks::of(desired.metadata()),
        });
        if let Some(seen) = entry.seen.take()
            && !entry.explains(&seen)
        {
            entry.seen = Some(seen);
        }
        Recorded {
            changed: before.as_deref() != Some(fingerprint),
            overtaken: entry.seen.is_some(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answered write turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Recorded {
    /// The server stored a new state.
    pub(crate) changed: bool,
    /// Somebody wrote after us before the answer arrived.
    pub(crate) overtaken: bool,
}

impl Seen {
    fn of(change: &Change) -> Self {
        let fingerprint = change.fingerprint();
        if change.deleted {
            Self::Gone {
                uid: fingerprint.uid().into(),
            }
        } else {
            Self::Alive(fingerprint, Marks::of(&change.metadata))
        }
    }
}

impl Entry {
    /// Whether what was seen follows from what we applied.
    fn explains(&self, seen: &Seen) -> bool {
        let Some(applied) = &self.applied else {
            return false;
        };
        match seen {
            // Another incarnation than ours went: ours came after it.
            Seen::Gone { uid } => **uid != *applied.fingerprint.uid(),
            // Whatever was stored before our write, our write has overwritten.
            Seen::Alive(state, _) if state.not_after(&applied.fingerprint) => true,
            Seen::Alive(state, marks) => {
                applied.fingerprint.same_state(state) && applied.marks.all_in(marks)
            }
        }
    }

    /// Whether a state that equals ours was stored after the foreign one seen before it.
    fn is_back_to_ours(&self, seen: &Seen) -> bool {
        match (self.seen.as_deref(), seen) {
            (Some(Seen::Alive(foreign, _)), Seen::Alive(state, _)) => foreign.not_after(state),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
