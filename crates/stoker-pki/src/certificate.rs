use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;
use crate::key::read_key;

/// The first certificate of a PEM text, as DER.
pub(crate) fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::NotPem("certificate"))
}

/// A certificate as PEM.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let lines = (0..text.len()).step_by(LINE).map(|begin| {
        let end = text.len().min(begin + LINE);
        format!("{}\n", &text[begin..end])
    });
    let body: String = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

/// The end of the first certificate of a PEM text.
///
/// # Errors
/// [`Error::NotPem`] or [`Error::ReadCertificate`].
pub fn not_after(pem: &str) -> Result<OffsetDateTime, Error> {
    let der = certificate_der(pem)?;
    let certificate = parse(&der)?;
    Ok(certificate.validity().not_after.to_datetime())
}

/// The first certificate of a PEM text, as PEM and without what is around it.
///
/// # Errors
/// [`Error::NotPem`].
pub fn first_certificate(pem: &str) -> Result<String, Error> {
    Ok(certificate_pem(&certificate_der(pem)?))
}

/// How many certificates a PEM text holds, all of which can be read.
///
/// # Errors
/// [`Error::NotPem`] or [`Error::ReadCertificate`].
pub fn certificate_count(pem: &str) -> Result<usize, Error> {
    let mut count = 0;
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        parse(&der.map_err(|_| Error::NotPem("certificate"))?)?;
        count += 1;
    }
    Ok(count)
}

/// Whether a PEM text is what the node `name` authenticates with at `now`: its first certificate is that node's and valid, one of
/// `authorities` (PEM) has signed it, and the key beside it belongs to it.
#[must_use]
pub fn is_node_credential(pem: &str, name: &str, authorities: &str, now: OffsetDateTime) -> bool {
    node_credential(pem, name, authorities, now).unwrap_or(false)
}

fn node_credential(
    pem: &str,
    name: &str,
    authorities: &str,
    now: OffsetDateTime,
) -> Result<bool, Error> {
    let der = certificate_der(pem)?;
    let leaf = parse(&der)?;
    let names: Vec<_> = leaf.subject().iter_common_name().collect();
    let [common_name] = names.as_slice() else {
        return Ok(false);
    };
    let is_nodes = common_name
        .as_str()
        .is_ok_and(|text| text.strip_prefix("system:node:") == Some(name));
    let (_, pair) = read_key(pem)?;
    let has_key = leaf.public_key().subject_public_key.data.as_ref() == pair.public_key_raw();
    if !is_nodes || !has_key || !leaf.validity().is_valid_at(now.into()) {
        return Ok(false);
    }
    for der in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let der = der.map_err(|_| Error::NotPem("certificate"))?;
        let authority = parse(&der)?;
        let is_named = leaf.issuer().as_raw() == authority.subject().as_raw();
        if is_named && leaf.verify_signature(Some(authority.public_key())).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the key of the first certificate of `authority` (PEM) has signed the first one of a PEM text. Names do not count: an
/// authority that takes another one's place may have its name.
#[must_use]
pub fn is_signed_by(pem: &str, authority: &str) -> bool {
    let signed = || -> Result<bool, Error> {
        let (leaf, authority) = (certificate_der(pem)?, certificate_der(authority)?);
        let (leaf, authority) = (parse(&leaf)?, parse(&authority)?);
        Ok(leaf.verify_signature(Some(authority.public_key())).is_ok())
    };
    signed().unwrap_or(false)
}

/// Parses one DER certificate; the result borrows from `der`.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(Error::ReadCertificate),
    }
}

/// The pin of a certificate authority as `kubeadm join --discovery-token-ca-cert-hash` takes it:
/// `sha256:` and the hex SHA-256 of its `SubjectPublicKeyInfo` (kubeadm `pubkeypin.Hash`).
///
/// Of a bundle, the first certificate counts.
///
/// # Errors
/// [`Error::NotPem`] or [`Error::ReadCertificate`].
pub fn ca_hash(ca_pem: &str) -> Result<String, Error> {
    let der = certificate_der(ca_pem)?;
    Ok(key_hash(parse(&der)?.public_key().raw))
}

/// The pin of each certificate in a PEM text.
///
/// # Errors
/// [`Error::NotPem`] or [`Error::ReadCertificate`].
pub fn pins(pem: &str) -> Result<Vec<String>, Error> {
    let pin = |der: Result<CertificateDer<'_>, _>| {
        let der = der.map_err(|_| Error::NotPem("certificate"))?;
        Ok(key_hash(parse(&der)?.public_key().raw))
    };
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(pin)
        .collect()
}

/// Those certificates of a PEM text whose pin is one of `pins`, as PEM.
pub(crate) fn pinned(pem: &str, pins: &[String]) -> Result<String, Error> {
    let mut found = String::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|_| Error::NotPem("certificate"))?;
        if pins.contains(&key_hash(parse(&der)?.public_key().raw)) {
            found.push_str(&certificate_pem(&der));
        }
    }
    Ok(found)
}

/// `sha256:` and the hex SHA-256 of a `SubjectPublicKeyInfo`.
pub(crate) fn key_hash(public_key_info: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(public_key_info)))
}
