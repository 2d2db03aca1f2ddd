//! Another authority without a moment in which somebody is not believed: what comes next, and what it makes of the two.
//!
//! ```text
//!  at rest ──Begin──► Distributing ──Sign──► Signing ──Leave──► at rest
//!             old signs,            new signs,         only the new one
//!             both believed         both believed      is believed
//! ```
//! `Begin` and `Sign` wait until each pod of the control plane is of what stands; `Leave` until each of them has certificates of the new
//! one, each node has, and the time that people have to fetch theirs is over.

use stoker_api::v1alpha1::CertificateAuthority;
use stoker_pki::Authority;
use time::OffsetDateTime;

use super::{Change, LIFETIME, RotatingAuthority, secret};
use crate::encryption::Servers;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityObserved {
    /// Whether the control plane's pods are of what stands.
    pub servers: Servers,
    /// Nodes whose kubelets are not known to have certificates of the signer; `None` when nobody has looked.
    pub nodes_behind: Option<usize>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityStep {
    /// Nothing: it is as wanted.
    Rest,
    /// Nothing: it may not vouch for another one, without which whoever knows it alone would be cut off.
    Refuse,
    /// Until pods run.
    AwaitServers,
    /// Until they are of what stands.
    AwaitRollout,
    /// Look which nodes have certificates of the signer, and wait for the others.
    AwaitNodes,
    /// Until then.
    AwaitTime(OffsetDateTime),
    /// Write the next: [`RotatingAuthority::after`].
    Advance(AuthorityAdvance),
}

/// How it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityAdvance {
    /// Another one is made, and believed.
    Begin,
    /// It goes again: it is not wanted any more, and has signed nothing.
    Cancel,
    /// It signs.
    Sign,
    /// The former one is believed no more.
    Leave,
}

impl RotatingAuthority {
    /// What comes next on the way to what is wanted.
    #[must_use]
    pub fn next(
        &self,
        wanted: &CertificateAuthority,
        seen: AuthorityObserved,
        now: OffsetDateTime,
    ) -> AuthorityStep {
        let is_wanted = wanted.generation <= self.state.generation;
        let awaited = match seen.servers {
            Servers::None => Some(AuthorityStep::AwaitServers),
            Servers::Behind | Servers::Unproven => Some(AuthorityStep::AwaitRollout),
            Servers::Current => None,
        };
        match &self.state.change {
            None if is_wanted => AuthorityStep::Rest,
            None if !self.signer.can_vouch() => AuthorityStep::Refuse,
            None => awaited.unwrap_or(AuthorityStep::Advance(AuthorityAdvance::Begin)),
            Some(Change::Distributing { .. }) if is_wanted => {
                AuthorityStep::Advance(AuthorityAdvance::Cancel)
            }
            Some(Change::Distributing { .. }) => {
                awaited.unwrap_or(AuthorityStep::Advance(AuthorityAdvance::Sign))
            }
            Some(Change::Signing { since, .. }) => awaited.unwrap_or_else(|| {
                let over = until(*since, wanted.former_trust_seconds);
                match seen.nodes_behind {
                    Some(0) if over <= now => AuthorityStep::Advance(AuthorityAdvance::Leave),
                    Some(0) => AuthorityStep::AwaitTime(over),
                    Some(_) | None => AuthorityStep::AwaitNodes,
                }
            }),
        }
    }

    /// It after a step; `None` when that is not one from here.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn after(
        &self,
        advance: AuthorityAdvance,
        wanted: &CertificateAuthority,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, stoker_pki::Error> {
        let mut next = self.state.clone();
        next.revision += 1;
        match (advance, next.change.take()) {
            (AuthorityAdvance::Begin, None) => {
                let name = format!("{}-{}", self.role.common_name(), wanted.generation);
                let (other, link) = self.signer.successor(&name, LIFETIME, now)?;
                next.change = Some(Change::Distributing {
                    generation: wanted.generation,
                    certificate: other.certificate().to_owned(),
                    key: secret(other.key()),
                    link,
                });
            }
            (AuthorityAdvance::Cancel, Some(Change::Distributing { .. }))
            | (AuthorityAdvance::Leave, Some(Change::Signing { .. })) => {}
            (
                AuthorityAdvance::Sign,
                Some(Change::Distributing {
                    generation,
                    certificate,
                    key,
                    link,
                }),
            ) => {
                let signer = Authority::from_pem(&certificate, &key.0)?;
                next.generation = generation;
                next.links.insert(0, link);
                next.change = Some(Change::Signing {
                    certificate: std::mem::replace(&mut next.certificate, certificate),
                    since: now.unix_timestamp(),
                });
                return Ok(Some(Self {
                    role: self.role,
                    signer,
                    state: next,
                }));
            }
            (_, _) => return Ok(None),
        }
        let signer = Authority::from_pem(self.signer.certificate(), self.signer.key().as_pem())?;
        Ok(Some(Self {
            role: self.role,
            signer,
            state: next,
        }))
    }
}

fn until(since: i64, seconds: i64) -> OffsetDateTime {
    let end = OffsetDateTime::from_unix_timestamp(since.saturating_add(seconds));
    end.unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
