use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509Certificate;

use crate::certificate::{certificate_der, certificate_pem, parse};
use crate::key::read_key;
use crate::subject::with_organizations;
use crate::{Error, KeyedCertificate, LeafRequest, MINIMUM_LIFETIME, PrivateKey};

/// How far a certificate's begin lies before its issue, so that a host whose clock is behind
/// accepts it at once: kubeadm's `CertificateBackdate`.
const BACKDATE: Duration = Duration::minutes(5);

/// A certificate authority: its certificate and its private key, known to belong together.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    key: PrivateKey,
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a self-signed authority with a new ECDSA P-256 key.
    ///
    /// It begins five minutes before `now` and ends `lifetime` after it.
    ///
    /// # Errors
    /// [`Error::Lifetime`]; [`Error::Sign`] or [`Error::Random`] when the machine has no randomness.
    pub fn generate(
        common_name: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, Error> {
        let params = authority_params(common_name, lifetime, now)?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Sign)?;
        let certificate = params.self_signed(&pair).map_err(Error::Sign)?;
        let key = PrivateKey::from_pair(&pair);
        Self::new(certificate.pem(), certificate.der().to_vec(), key, pair)
    }

    /// Whether it may certify another authority (RFC 5280, 4.2.1.9): with a path length of 0 it may not.
    #[must_use]
    pub fn can_vouch(&self) -> bool {
        let parsed = self.parsed();
        let constraints = parsed.as_ref().map(|found| found.basic_constraints());
        let Ok(Ok(Some(constraints))) = constraints else {
            return false;
        };
        constraints.value.path_len_constraint != Some(0)
    }

    /// Makes another authority, and a cross-certificate (RFC 4949): its key certified by this one. Whoever believes this
    /// one alone believes what the other signs where that is sent along.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and [`Error::AuthorityExpired`].
    pub fn successor(
        &self,
        common_name: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(Self, String), Error> {
        if now >= self.not_after {
            return Err(Error::AuthorityExpired {
                not_after: self.not_after,
            });
        }
        let next = Self::generate(common_name, lifetime, now)?;
        let mut params = authority_params(common_name, lifetime, now)?;
        params.use_authority_key_identifier_extension = true;
        params.not_after = next.not_after.min(self.not_after);
        let link = params.signed_by(next.issuer.key(), &self.issuer);
        Ok((next, link.map_err(Error::Sign)?.pem()))
    }

    /// Reads an existing authority, whoever made it.
    ///
    /// `certificate` is kept byte for byte; of a bundle, the first certificate is the authority.
    /// `key` may be PKCS#8, SEC1 or PKCS#1 and is kept as PKCS#8. An expired authority is read, so
    /// that its leaves can be judged, but [`issue`](Self::issue) refuses it.
    ///
    /// # Errors
    /// As [`PrivateKey::from_pem`], and [`Error::ReadCertificate`], [`Error::NotAnAuthority`],
    /// [`Error::KeyMismatch`], [`Error::UnsupportedSubject`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let der = certificate_der(certificate)?.to_vec();
        let (key, pair) = read_key(key)?;
        let authority = Self::new(certificate.to_owned(), der, key, pair)?;
        authority.check_issuer_name()?;
        Ok(authority)
    }

    fn new(
        certificate: String,
        der: Vec<u8>,
        key: PrivateKey,
        pair: KeyPair,
    ) -> Result<Self, Error> {
        let parsed = parse(&der)?;
        if !may_sign(&parsed) {
            return Err(Error::NotAnAuthority);
        }
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(Error::KeyMismatch);
        }
        let not_after = parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), pair)
            .map_err(|_| Error::UnsupportedSubject)?;
        Ok(Self {
            certificate,
            key,
            issuer,
            der,
            not_after,
        })
    }

    /// Signs a throw-away certificate to see that rcgen repeats the authority's subject byte for
    /// byte: it keeps one value per attribute, and verifiers compare bytes (RFC 5280, section 7.1).
    fn check_issuer_name(&self) -> Result<(), Error> {
        let probe = CertificateParams::default()
            .signed_by(self.issuer.key(), &self.issuer)
            .map_err(Error::Sign)?;
        let same = parse(probe.der())?.issuer().as_raw() == self.parsed()?.subject().as_raw();
        if same {
            Ok(())
        } else {
            Err(Error::UnsupportedSubject)
        }
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The end of its validity. No leaf lives longer.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(crate) fn parsed(&self) -> Result<X509Certificate<'_>, Error> {
        parse(&self.der)
    }

    /// Issues a leaf with a new ECDSA P-256 key and a random 128-bit serial number.
    ///
    /// It begins five minutes before `now` and ends after the lifetime asked for, or with the
    /// authority, whichever is sooner.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`], [`Error::Lifetime`], [`Error::DnsName`]; [`Error::Sign`] or
    /// [`Error::Random`] when the machine has no randomness.
    pub fn issue(
        &self,
        request: &LeafRequest,
        now: OffsetDateTime,
    ) -> Result<KeyedCertificate, Error> {
        if now >= self.not_after {
            return Err(Error::AuthorityExpired {
                not_after: self.not_after,
            });
        }
        let mut params = request.params()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        params.not_before = begin(now, request.lifetime)?;
        params.not_after = end(now, request.lifetime)?.min(self.not_after);

        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Sign)?;
        let signed = params.signed_by(&pair, &self.issuer).map_err(Error::Sign)?;
        let certificate = if request.organizations.len() > 1 {
            let der = with_organizations(signed.der(), request, self.issuer.key())?;
            certificate_pem(&der)
        } else {
            signed.pem()
        };
        Ok(KeyedCertificate {
            certificate,
            key: PrivateKey::from_pair(&pair),
        })
    }
}

/// What the certificate of an authority says.
fn authority_params(
    common_name: &str,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.serial_number = Some(serial_number()?);
    params.not_before = begin(now, lifetime)?;
    params.not_after = end(now, lifetime)?;
    Ok(params)
}

/// RFC 5280, 4.2.1.3 and 4.2.1.9; Go's `CheckSignatureFrom` asks the same.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let usage_allows = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    certificate.is_ca() && usage_allows
}

fn begin(now: OffsetDateTime, lifetime: Duration) -> Result<OffsetDateTime, Error> {
    now.checked_sub(BACKDATE).ok_or(Error::Lifetime(lifetime))
}

fn end(now: OffsetDateTime, lifetime: Duration) -> Result<OffsetDateTime, Error> {
    if lifetime < MINIMUM_LIFETIME {
        return Err(Error::Lifetime(lifetime));
    }
    now.checked_add(lifetime).ok_or(Error::Lifetime(lifetime))
}

fn serial_number() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(SerialNumber::from_slice(&bytes))
}
