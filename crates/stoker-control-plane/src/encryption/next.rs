//! A change of keys without a moment in which a value that is stored cannot be read: what comes next, and what it makes
//! of the keys.
//!
//! ```text
//!  at rest ──Begin──► Reading ──Write──► Writing ──TakeAway──► Leaving ──Forget──► at rest
//!             old writes,        new writes, what is  ▲   only the new one is │
//!             both read          stored is rewritten  └──GoBack── served      ▼ old found
//! ```
//! Every arrow but the first waits until each API server serves what stands. The old key stays in the Secret and in its
//! copy until `Forget`.

use stoker_api::v1alpha1::Encryption;

use super::goal::{Refusal, goal};
use super::scheme::{Phase, Provider};
use super::state::{Change, State};
use super::{EncryptionKeys, new_key};

/// What the API servers serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// None runs.
    None,
    /// Some do not serve what stands, or it is not known yet.
    Behind,
    /// Some may serve it or what was before; they would show it by serving another revision of the same.
    Unproven,
    /// Each serves what stands.
    Current,
}

/// What is stored, once each API server serves what stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nobody has looked.
    Unknown,
    /// Something that the change is to replace is left.
    Old,
    /// Nothing is.
    New,
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The API servers.
    pub servers: Servers,
    /// The values.
    pub stored: Stored,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as wanted.
    Rest,
    /// Nothing: there is no way to what is wanted.
    Refuse(Refusal),
    /// Until API servers run.
    AwaitServers,
    /// Until they serve what stands.
    AwaitLoading,
    /// Rewrite what is stored, and look whether anything of the old one is left.
    Rewrite,
    /// Look once more whether anything of the old one is left.
    Check,
    /// Write new keys: those of [`EncryptionKeys::after`].
    Advance(Advance),
}

/// How the keys change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The new one comes in, to read.
    Begin,
    /// It goes again: something else is wanted, and nothing was written with it.
    Cancel,
    /// Another socket or time limit of the same plugin.
    Adjust,
    /// Another revision of the same.
    Touch,
    /// The new one writes.
    Write,
    /// The old one is not served any more.
    TakeAway,
    /// It is again: something of it was found.
    GoBack,
    /// The old one goes for good.
    Forget,
}

impl EncryptionKeys {
    /// What comes next on the way to what is wanted.
    #[must_use]
    pub fn next(&self, wanted: &Encryption, seen: Observed) -> Step {
        let Some(state) = &self.state else {
            return if *wanted == Encryption::default() {
                Step::Rest
            } else {
                Step::Refuse(Refusal::ByHand)
            };
        };
        if state.adjusted(wanted).is_some() {
            return Step::Advance(Advance::Adjust);
        }
        let Some(change) = &state.change else {
            return if state.scheme.serves(wanted) {
                Step::Rest
            } else {
                match goal(&state.scheme, wanted) {
                    Ok(_) => Step::Advance(Advance::Begin),
                    Err(refusal) => Step::Refuse(refusal),
                }
            };
        };
        if change.phase == Phase::Reading && !state.leads_to(change, wanted) {
            return Step::Advance(Advance::Cancel);
        }
        match seen.servers {
            Servers::None => return Step::AwaitServers,
            Servers::Behind => return Step::AwaitLoading,
            Servers::Unproven => return Step::Advance(Advance::Touch),
            Servers::Current => {}
        }
        match (change.phase, seen.stored) {
            (Phase::Reading, _) => Step::Advance(Advance::Write),
            (Phase::Writing, Stored::New) => Step::Advance(Advance::TakeAway),
            (Phase::Writing, _) => Step::Rewrite,
            (Phase::Leaving, Stored::Unknown) => Step::Check,
            (Phase::Leaving, Stored::Old) => Step::Advance(Advance::GoBack),
            (Phase::Leaving, Stored::New) => Step::Advance(Advance::Forget),
        }
    }

    /// The keys after a step; `None` when it is not one from here.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn after(
        &self,
        advance: Advance,
        wanted: &Encryption,
    ) -> Result<Option<Self>, stoker_pki::Error> {
        let Some(state) = &self.state else {
            return Ok(None);
        };
        let mut next = state.clone();
        next.revision += 1;
        next.since = next.revision;
        let changed = match advance {
            Advance::Begin => begin(&mut next, wanted)?,
            Advance::Cancel => next.change.take().map(drop),
            Advance::Touch => {
                next.since = state.since;
                Some(())
            }
            Advance::Adjust => state.adjusted(wanted).map(|adjusted| {
                (next.scheme, next.change) = (adjusted.scheme, adjusted.change);
            }),
            Advance::Write | Advance::GoBack => next.set_phase(Phase::Writing),
            Advance::TakeAway => next.set_phase(Phase::Leaving),
            Advance::Forget => next.change.take().map(|change| next.scheme = change.to),
        };
        Ok(changed.map(|()| Self::of(next)))
    }
}

fn begin(next: &mut State, wanted: &Encryption) -> Result<Option<()>, stoker_pki::Error> {
    let Ok(goal) = goal(&next.scheme, wanted) else {
        return Ok(None);
    };
    let key = if goal.needs_key() {
        // Its name is stored with the values: one that was never used. That of one that somebody put there by hand may
        // be any.
        let used = next.scheme.provider.key().map(|key| key.name.as_str());
        let names = (next.revision + 1..).map(|number| format!("key{number}"));
        let mut free = names.filter(|name| used != Some(name));
        Some(new_key(free.next().unwrap_or_default())?)
    } else {
        None
    };
    let Some(to) = goal.scheme(&next.scheme, key) else {
        return Ok(None);
    };
    // A plugin that goes on reads everything already; it may have another key behind its name.
    let same = next.scheme.provider.is_like(&to.provider) && next.scheme.resources == to.resources;
    let phase = if same { Phase::Writing } else { Phase::Reading };
    next.change = Some(Change { to, phase });
    Ok(Some(()))
}

impl State {
    fn set_phase(&mut self, phase: Phase) -> Option<()> {
        self.change.as_mut().map(|change| change.phase = phase)
    }

    fn leads_to(&self, change: &Change, wanted: &Encryption) -> bool {
        !self.scheme.serves(wanted)
            && goal(&self.scheme, wanted).is_ok_and(|goal| goal.is_reached_by(&change.to))
    }

    /// With the plugin as it is wanted, where one of its name is used otherwise.
    fn adjusted(&self, wanted: &Encryption) -> Option<Self> {
        let plugin = wanted.kms.as_ref()?;
        let mut adjusted = self.clone();
        let change = adjusted.change.iter_mut().map(|change| &mut change.to);
        let schemes = std::iter::once(&mut adjusted.scheme).chain(change);
        let mut differs = false;
        for scheme in schemes {
            if let Provider::Kms(used) = &mut scheme.provider
                && used.name == plugin.name
                && used != plugin
            {
                used.clone_from(plugin);
                differs = true;
            }
        }
        differs.then_some(adjusted)
    }
}
