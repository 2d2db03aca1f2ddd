//! An authority of a tenant, and how another takes its place.

mod next;

use serde::{Deserialize, Serialize};
use stoker_pki::{Authority, PrivateKey, first_certificate, is_signed_by, not_after};
use time::{Duration, OffsetDateTime};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::entry;

pub use next::{AuthorityAdvance, AuthorityObserved, AuthorityStep};

/// Lifetime of an authority: ten years, as kubeadm's.
const LIFETIME: Duration = Duration::days(3650);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityRole {
    /// Signs the certificates of the API server, components, people and nodes.
    Cluster,
    /// Signs that by which the API server proves itself to aggregated API servers.
    FrontProxy,
}

impl AuthorityRole {
    /// Common name of the first one, as kubeadm's. Those after it have their generation in it.
    fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "kubernetes",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// Entries of its Secret: what is believed, the key of what signs, and the record of changes.
    pub(crate) fn entries(self) -> [&'static str; 3] {
        match self {
            Self::Cluster => [entry::CA_CERTIFICATE, entry::CA_KEY, entry::CA_RECORD],
            Self::FrontProxy => [
                entry::FRONT_PROXY_CA_CERTIFICATE,
                entry::FRONT_PROXY_CA_KEY,
                entry::FRONT_PROXY_CA_RECORD,
            ],
        }
    }
}

/// What signs, and during a change what is believed beside it.
#[derive(Debug)]
pub struct RotatingAuthority {
    role: AuthorityRole,
    signer: Authority,
    state: State,
}

/// What is durable of the changes of an authority: an entry beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    /// Counts every change of this; 0 is as at birth.
    revision: u64,
    /// `spec.kubernetes.certificateAuthority.generation` that the signer was made for.
    generation: i64,
    /// The signer's certificate, PEM.
    certificate: String,
    /// The signer's key certified by the one before it, PEM, that one's by the one before that, and so on: who knows one of
    /// them alone believes the signer by these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<String>,
    /// What is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
}

/// One authority takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "phase",
    deny_unknown_fields
)]
enum Change {
    /// The next one is believed beside the signer, and signs nothing.
    Distributing {
        generation: i64,
        certificate: String,
        key: Secret,
        link: String,
    },
    /// The former one is believed beside the signer, and signs nothing any more.
    Signing {
        /// Its certificate.
        certificate: String,
        /// Seconds of the Unix epoch when that began.
        since: i64,
    },
}

/// A private key as PEM, which is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(transparent)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// Why the record of an authority's changes cannot be used. Never quotes it, since a key may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of the authority's changes cannot be read")]
pub struct AuthorityRecordError;

impl RotatingAuthority {
    /// Makes the first one, for `generation` of the spec.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate(
        role: AuthorityRole,
        generation: i64,
        now: OffsetDateTime,
    ) -> Result<Self, stoker_pki::Error> {
        let signer = Authority::generate(role.common_name(), LIFETIME, now)?;
        Ok(Self::born(role, signer, generation))
    }

    /// One that nothing is recorded of, such as one that people brought along.
    #[must_use]
    pub fn born(role: AuthorityRole, signer: Authority, generation: i64) -> Self {
        let state = State {
            revision: u64::from(generation != 0),
            generation,
            certificate: signer.certificate().to_owned(),
            links: Vec::new(),
            change: None,
        };
        Self {
            role,
            signer,
            state,
        }
    }

    /// Reads the one whose changes were recorded.
    ///
    /// # Errors
    /// [`AuthorityRecordError`] in the outer, as [`Authority::from_pem`] in the inner result.
    pub(crate) fn read(
        role: AuthorityRole,
        record: &str,
        key: &str,
    ) -> Result<Result<Self, stoker_pki::Error>, AuthorityRecordError> {
        let state: State = serde_json::from_str(record).map_err(|_| AuthorityRecordError)?;
        let others = match &state.change {
            Some(
                Change::Distributing { certificate, .. } | Change::Signing { certificate, .. },
            ) => Some(certificate),
            None => None,
        };
        let texts = others.into_iter().chain(&state.links);
        if texts
            .into_iter()
            .any(|text| first_certificate(text).is_err())
        {
            return Err(AuthorityRecordError);
        }
        let signer = Authority::from_pem(&state.certificate, key);
        Ok(signer.map(|signer| Self {
            role,
            signer,
            state,
        }))
    }

    /// Which one it is.
    #[must_use]
    pub fn role(&self) -> AuthorityRole {
        self.role
    }

    /// What signs.
    #[must_use]
    pub fn signer(&self) -> &Authority {
        &self.signer
    }

    /// What is believed, PEM: the signer first, and during a change the other one.
    #[must_use]
    pub fn trusted(&self) -> String {
        let signer = self.signer.certificate();
        match &self.state.change {
            None => signer.to_owned(),
            Some(
                Change::Distributing { certificate, .. } | Change::Signing { certificate, .. },
            ) => {
                let gap = if signer.ends_with('\n') { "" } else { "\n" };
                format!("{signer}{gap}{certificate}")
            }
        }
    }

    /// A certificate of the signer with what is sent after it, PEM, so that it is believed by who knows one of those before
    /// alone. A link that has ended leads nowhere, nor do those behind it.
    #[must_use]
    pub(crate) fn linked(&self, leaf: &str, now: OffsetDateTime) -> String {
        self.living(now)
            .fold(leaf.to_owned(), |text, link| text + link)
    }

    /// When less is to be sent.
    pub(crate) fn links_end(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.living(now)
            .filter_map(|link| not_after(link).ok())
            .min()
    }

    fn living(&self, now: OffsetDateTime) -> impl Iterator<Item = &String> {
        let lives = move |link: &&String| not_after(link).is_ok_and(|end| now < end);
        self.state.links.iter().take_while(lives)
    }

    /// Whether this is `before` or what became of it by changes, however many: then `before` is of no use any more, while the
    /// key of this one may exist nowhere else.
    #[must_use]
    pub fn descends_from(&self, before: &Self) -> bool {
        let was = before.signer.certificate();
        let is_by = |link: &String| is_signed_by(link, was);
        self.state.revision > before.state.revision
            && (self.signer.certificate() == was || self.state.links.iter().any(is_by))
    }

    /// In words for people, without a key.
    #[must_use]
    pub fn describe(&self) -> String {
        let generation = self.state.generation;
        let generation = match self.role {
            AuthorityRole::Cluster => {
                format!("the cluster authority is of generation {generation}")
            }
            AuthorityRole::FrontProxy => {
                format!("the front-proxy authority is of generation {generation}")
            }
        };
        match &self.state.change {
            None => generation,
            Some(Change::Distributing {
                generation: next, ..
            }) => format!("{generation}, and {next} comes in"),
            Some(Change::Signing { .. }) => format!("{generation}, and the former one is believed"),
        }
    }

    /// The record of its changes, JSON that may have a key in it; `None` while it is as made at birth.
    #[must_use]
    pub fn record(&self) -> Option<Zeroizing<String>> {
        // Strings in structs always serialize.
        let text = || serde_json::to_string(&self.state).unwrap_or_default();
        (self.state.revision > 0).then(|| Zeroizing::new(text()))
    }

    /// Whether it ever took the place of another one, or is to.
    #[must_use]
    pub fn was_changed(&self) -> bool {
        self.state.revision > 1 || self.state.change.is_some()
    }

    /// Seconds of the Unix epoch since when it signs while the former one is believed.
    #[must_use]
    pub fn signs_since(&self) -> Option<i64> {
        match &self.state.change {
            Some(Change::Signing { since, .. }) => Some(*since),
            Some(Change::Distributing { .. }) | None => None,
        }
    }

    /// Whether it is one change after `before`.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        let known = |certificate: &str| {
            before.signer.certificate() == certificate
                || matches!(&before.state.change, Some(Change::Distributing { certificate: next, .. }) if next == certificate)
        };
        self.state.revision == before.state.revision + 1 && known(self.signer.certificate())
    }
}

fn secret(key: &PrivateKey) -> Secret {
    Secret(key.as_pem().to_owned())
}

#[cfg(test)]
mod tests;
