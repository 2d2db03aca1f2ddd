use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::certificate::{certificate_der, parse};
use crate::key::read_key;
use crate::{Authority, Error, LeafRequest, LeafUsage};

/// What is to be done with an existing leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafState {
    /// Good; look again at `renew_at`.
    Valid {
        /// When [`leaf_state`] will ask for a new one if nothing else changes.
        renew_at: OffsetDateTime,
    },
    /// To be issued anew.
    Reissue(ReissueReason),
}

/// Why a leaf must be issued anew. `Display` gives a phrase for an event or a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReissueReason {
    /// The certificate or the key is missing or damaged.
    Unreadable,
    /// The key belongs to another certificate.
    KeyMismatch,
    /// Not signed by the present authority.
    WrongAuthority,
    /// For another usage, or itself an authority.
    UsageChanged,
    /// Another common name or other organizations.
    SubjectChanged,
    /// A wanted DNS name or address is not in it.
    MissingName(String),
    /// A DNS name or address in it is no longer wanted.
    ExtraName(String),
    /// Begins in the future: the clock that it was issued by was ahead.
    NotYetValid,
    /// In the last third of its validity, or over.
    Expiring,
}

impl fmt::Display for ReissueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("the certificate or its key is not readable"),
            Self::KeyMismatch => f.write_str("the key does not belong to the certificate"),
            Self::WrongAuthority => f.write_str("not signed by the present certificate authority"),
            Self::UsageChanged => f.write_str("the usage is not the wanted one"),
            Self::SubjectChanged => f.write_str("the subject is not the wanted one"),
            Self::MissingName(name) => write!(f, "the name {name} is missing"),
            Self::ExtraName(name) => write!(f, "the name {name} is no longer wanted"),
            Self::NotYetValid => f.write_str("not valid yet"),
            Self::Expiring => f.write_str("close to its end"),
        }
    }
}

/// Judges an existing leaf (`certificate` and `key` as PEM) against what is wanted now.
///
/// A leaf is renewed when a third of its validity is left: of a year, four months, in which a
/// failing renewal can be noticed and mended, as cert-manager does by default; kubeadm leaves it to
/// upgrades. A leaf that ends with its authority is kept to that end, because a new one would not
/// live longer: the authority has to be renewed.
///
/// The signature is verified with the authority's public key: an authority that was replaced by
/// another of the same name is noticed. A changed `lifetime` alone does not lead to a new leaf.
#[must_use]
pub fn leaf_state(
    certificate: &str,
    key: &str,
    request: &LeafRequest,
    authority: &Authority,
    now: OffsetDateTime,
) -> LeafState {
    let Ok(der) = certificate_der(certificate) else {
        return LeafState::Reissue(ReissueReason::Unreadable);
    };
    let (Ok(leaf), Ok((_, pair))) = (parse(&der), read_key(key)) else {
        return LeafState::Reissue(ReissueReason::Unreadable);
    };
    let mismatch = if leaf.public_key().subject_public_key.data.as_ref() == pair.public_key_raw() {
        mismatch(&leaf, request, authority)
    } else {
        Some(ReissueReason::KeyMismatch)
    };
    match mismatch {
        Some(reason) => LeafState::Reissue(reason),
        None => by_time(&leaf, authority.not_after(), now),
    }
}

/// When a leaf that `authority` has just issued is to be issued anew, if nothing else changes.
#[must_use]
pub fn renewal(certificate: &str, authority: &Authority, now: OffsetDateTime) -> OffsetDateTime {
    let Ok(der) = certificate_der(certificate) else {
        return now;
    };
    match parse(&der).map(|leaf| by_time(&leaf, authority.not_after(), now)) {
        Ok(LeafState::Valid { renew_at }) => renew_at,
        Ok(LeafState::Reissue(_)) | Err(_) => now,
    }
}

/// The first difference that time has no part in.
fn mismatch(
    leaf: &X509Certificate<'_>,
    request: &LeafRequest,
    authority: &Authority,
) -> Option<ReissueReason> {
    if !signed_by(leaf, authority).unwrap_or(false) {
        return Some(ReissueReason::WrongAuthority);
    }
    if !has_usage(leaf, request.usage) {
        return Some(ReissueReason::UsageChanged);
    }
    if subject(leaf) != Some(wanted_subject(request)) {
        return Some(ReissueReason::SubjectChanged);
    }
    let Some((dns_names, ip_addresses)) = names(leaf) else {
        return Some(ReissueReason::Unreadable);
    };
    name_difference(&request.dns_set(), &dns_names)
        .or_else(|| name_difference(&request.ip_set(), &ip_addresses))
}

fn by_time(
    leaf: &X509Certificate<'_>,
    authority_end: OffsetDateTime,
    now: OffsetDateTime,
) -> LeafState {
    let begin = leaf.validity().not_before.to_datetime();
    let end = leaf.validity().not_after.to_datetime();
    if now < begin {
        return LeafState::Reissue(ReissueReason::NotYetValid);
    }
    let renew_at = if end >= authority_end {
        authority_end
    } else {
        end - (end - begin) / 3
    };
    if now >= renew_at {
        return LeafState::Reissue(ReissueReason::Expiring);
    }
    LeafState::Valid { renew_at }
}

fn signed_by(leaf: &X509Certificate<'_>, authority: &Authority) -> Result<bool, Error> {
    let authority = authority.parsed()?;
    Ok(leaf.issuer().as_raw() == authority.subject().as_raw()
        && leaf.verify_signature(Some(authority.public_key())).is_ok())
}

fn has_usage(leaf: &X509Certificate<'_>, usage: LeafUsage) -> bool {
    let Ok(Some(extension)) = leaf.extended_key_usage() else {
        return false;
    };
    extension.value.server_auth == usage.server()
        && extension.value.client_auth == usage.client()
        && !leaf.is_ca()
}

/// Attribute types and values, sorted; `None` when one is not text.
fn subject(leaf: &X509Certificate<'_>) -> Option<Vec<(String, String)>> {
    let mut attributes = leaf
        .subject()
        .iter_attributes()
        .map(|attribute| {
            let value = attribute.as_str().ok()?.to_owned();
            Some((attribute.attr_type().to_id_string(), value))
        })
        .collect::<Option<Vec<_>>>()?;
    attributes.sort();
    Some(attributes)
}

/// X.520: 2.5.4.10 is the organization, 2.5.4.3 the common name.
fn wanted_subject(request: &LeafRequest) -> Vec<(String, String)> {
    let organizations = request.organization_set().into_iter();
    let organizations = organizations.map(|value| ("2.5.4.10".to_owned(), value.to_owned()));
    let common_name = ("2.5.4.3".to_owned(), request.common_name.clone());
    // Sorted, as the attributes of a certificate are above: by object identifier as text.
    organizations.chain([common_name]).collect()
}

/// DNS names in lower case, and addresses; `None` when there is a name of another kind.
fn names(leaf: &X509Certificate<'_>) -> Option<(BTreeSet<String>, BTreeSet<IpAddr>)> {
    let mut dns_names = BTreeSet::new();
    let mut ip_addresses = BTreeSet::new();
    let Some(extension) = leaf.subject_alternative_name().ok()? else {
        return Some((dns_names, ip_addresses));
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                dns_names.insert(name.to_ascii_lowercase());
            }
            GeneralName::IPAddress(bytes) => {
                ip_addresses.insert(address(bytes)?);
            }
            _ => return None,
        }
    }
    Some((dns_names, ip_addresses))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn name_difference<T: Ord + fmt::Display>(
    wanted: &BTreeSet<T>,
    present: &BTreeSet<T>,
) -> Option<ReissueReason> {
    if let Some(name) = wanted.difference(present).next() {
        return Some(ReissueReason::MissingName(name.to_string()));
    }
    let extra = present.difference(wanted).next()?;
    Some(ReissueReason::ExtraName(extra.to_string()))
}
