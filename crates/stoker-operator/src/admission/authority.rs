//! The webhook's own authority and serving certificate: what the Secret holds, and what is to become of it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use stoker_pki::{
    Authority, Error, KeyedCertificate, LeafRequest, LeafState, LeafUsage, PrivateKey, leaf_state,
    not_after,
};
use time::{Duration, OffsetDateTime};

const AUTHORITY_LIFETIME: Duration = Duration::days(3 * 365);
const LEAF_LIFETIME: Duration = Duration::days(90);

const AUTHORITY: [&str; 2] = ["ca.crt", "ca.key"];
const SERVING: [&str; 2] = ["tls.crt", "tls.key"];
/// Trusted already, and not signing yet.
const NEXT: [&str; 2] = ["next-ca.crt", "next-ca.key"];
/// Trusted still, as long as some replica may show a leaf of it. Its key is gone.
const PREVIOUS: &str = "previous-ca.crt";

/// What the Secret holds.
#[derive(Debug)]
pub(super) struct Kept {
    authority: Authority,
    serving: KeyedCertificate,
    next: Option<Authority>,
    previous: Option<String>,
}

/// What it is to hold.
#[derive(Debug)]
pub(super) struct Decided {
    /// As it is to be.
    pub(super) kept: Kept,
    /// What was done, for the log; `None` when all is well.
    pub(super) done: Option<&'static str>,
    /// When to look again if nothing else happens.
    pub(super) look_again: OffsetDateTime,
}

/// What API servers dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// By name.
    pub(super) dns: Vec<String>,
    /// By address.
    pub(super) ips: Vec<IpAddr>,
}

/// Certificate and key that the Secret has for replicas to show.
pub(super) fn serving_of(secret: &Secret) -> Option<(String, String)> {
    let [certificate, key] = SERVING;
    Some((text(secret, certificate)?, text(secret, key)?))
}

fn text(secret: &Secret, entry: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(entry)?.0;
    String::from_utf8(bytes.clone()).ok()
}

fn authority(secret: &Secret, [certificate, key]: [&str; 2]) -> Option<Authority> {
    Authority::from_pem(&text(secret, certificate)?, &text(secret, key)?).ok()
}

impl Kept {
    /// What the Secret holds, unless that is of no use.
    pub(super) fn read(secret: &Secret) -> Option<Self> {
        let (certificate, key) = serving_of(secret)?;
        Some(Self {
            authority: authority(secret, AUTHORITY)?,
            serving: KeyedCertificate {
                certificate,
                key: PrivateKey::from_pem(&key).ok()?,
            },
            next: authority(secret, NEXT),
            previous: text(secret, PREVIOUS).filter(|pem| not_after(pem).is_ok()),
        })
    }

    fn made(names: &Names, now: OffsetDateTime) -> Result<Self, Error> {
        let authority = new_authority(now)?;
        Ok(Self {
            serving: authority.issue(&request(names), now)?,
            authority,
            next: None,
            previous: None,
        })
    }

    /// Every entry that the Secret may have; `None` for those that it is not to have.
    pub(super) fn entries(&self) -> BTreeMap<&'static str, Option<ByteString>> {
        let bytes = |text: &str| Some(ByteString(text.as_bytes().to_vec()));
        let next = self.next.as_ref();
        [
            (AUTHORITY[0], bytes(self.authority.certificate())),
            (AUTHORITY[1], bytes(self.authority.key().as_pem())),
            (SERVING[0], bytes(&self.serving.certificate)),
            (SERVING[1], bytes(self.serving.key.as_pem())),
            (NEXT[0], next.and_then(|next| bytes(next.certificate()))),
            (NEXT[1], next.and_then(|next| bytes(next.key().as_pem()))),
            (PREVIOUS, self.previous.as_deref().and_then(bytes)),
        ]
        .into()
    }

    /// What API servers are to trust.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(Authority::certificate);
        let all = [
            Some(self.authority.certificate()),
            next,
            self.previous.as_deref(),
        ];
        all.into_iter().flatten().collect()
    }

    /// Whether an authority waits to be trusted everywhere before it signs.
    pub(super) fn waits(&self) -> bool {
        self.next.is_some()
    }
}

fn new_authority(now: OffsetDateTime) -> Result<Authority, Error> {
    Authority::generate("stoker-webhook", AUTHORITY_LIFETIME, now)
}

fn request(names: &Names) -> LeafRequest {
    LeafRequest {
        common_name: "stoker-webhook".to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::Server,
        dns_names: names.dns.clone(),
        ip_addresses: names.ips.clone(),
        lifetime: LEAF_LIFETIME,
    }
}

/// The next step. An authority is replaced when a third of its time is left, and in this order, so that at every moment
/// every replica's leaf is trusted: the new one is trusted beside the old, then signs, then the old one loses its key and
/// is trusted to its end. `trusted` says that API servers have had the time to learn of what is in [`Kept::bundle`].
///
/// # Errors
/// The machine has no randomness, or a name is none.
pub(super) fn next(
    kept: Option<Kept>,
    names: &Names,
    trusted: bool,
    now: OffsetDateTime,
) -> Result<Decided, Error> {
    let usable = kept.filter(|kept| now < kept.authority.not_after());
    let (mut kept, mut done) = match usable {
        Some(kept) => (kept, None),
        None => (
            Kept::made(names, now)?,
            Some("authority and certificate made"),
        ),
    };
    if trusted && let Some(next) = kept.next.take() {
        kept.serving = next.issue(&request(names), now)?;
        let before = std::mem::replace(&mut kept.authority, next);
        kept.previous = Some(before.certificate().to_owned());
        done = Some("the new authority signs");
    }
    let renew_authority = kept.authority.not_after() - AUTHORITY_LIFETIME / 3;
    if now >= renew_authority && kept.next.is_none() {
        kept.next = Some(new_authority(now)?);
        done = Some("a new authority is to be trusted");
    }
    let is_over = |pem: &String| not_after(pem).is_ok_and(|end| end <= now);
    if kept.previous.take_if(|pem| is_over(pem)).is_some() {
        done = done.or(Some("an old authority is over"));
    }
    let state = |kept: &Kept| {
        leaf_state(
            &kept.serving.certificate,
            kept.serving.key.as_pem(),
            &request(names),
            &kept.authority,
            now,
        )
    };
    if let LeafState::Reissue(reason) = state(&kept) {
        tracing::debug!(%reason, "the webhook's certificate is issued anew");
        kept.serving = kept.authority.issue(&request(names), now)?;
        done = done.or(Some("certificate issued"));
    }
    let renew_leaf = match state(&kept) {
        LeafState::Valid { renew_at } => renew_at,
        LeafState::Reissue(_) => now,
    };
    let look_again = if kept.waits() {
        renew_leaf
    } else {
        renew_leaf.min(renew_authority)
    };
    Ok(Decided {
        kept,
        done,
        look_again,
    })
}

#[cfg(test)]
mod tests;
