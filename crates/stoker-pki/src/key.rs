use std::fmt;

use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use yasna::models::ObjectIdentifier;
use zeroize::Zeroizing;

use crate::Error;

const RSA_ENCRYPTION: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
/// The curves that ring signs with: P-256 and P-384.
const CURVES: [&[u64]; 2] = [&[1, 2, 840, 10045, 3, 1, 7], &[1, 3, 132, 0, 34]];

/// A private key as PKCS#8 PEM. Its text is wiped from memory when dropped, which rcgen's and ring's
/// copies inside an [`Authority`](crate::Authority) are not; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<String>);

impl PrivateKey {
    /// Reads an unencrypted PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`) key.
    ///
    /// Text that already is PKCS#8 is kept byte for byte; the others are wrapped, because ring
    /// reads nothing else.
    ///
    /// # Errors
    /// [`Error::NotPem`], [`Error::EncryptedKey`] or [`Error::ReadKey`].
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        read_key(pem).map(|(key, _)| key)
    }

    /// The key as PKCS#8 PEM (`-----BEGIN PRIVATE KEY-----`).
    #[must_use]
    pub fn as_pem(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_pair(pair: &KeyPair) -> Self {
        Self(Zeroizing::new(pair.serialize_pem()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

/// A certificate and the private key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedCertificate {
    /// PEM.
    pub certificate: String,
    /// Its private key.
    pub key: PrivateKey,
}

/// A key for kube-apiserver's `secretbox` encryption provider: 32 random bytes.
///
/// # Errors
/// [`Error::Random`].
pub fn encryption_key() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(Error::Random)?;
    Ok(key)
}

/// Reads a key in any of the supported forms, and the pair that signs with it.
pub(crate) fn read_key(pem: &str) -> Result<(PrivateKey, KeyPair), Error> {
    let der = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(der) => der,
        // "ENCRYPTED PRIVATE KEY" (PKCS#8) or "Proc-Type: 4,ENCRYPTED" (OpenSSL's older form).
        Err(_) if pem.contains("ENCRYPTED") => return Err(Error::EncryptedKey),
        Err(_) => return Err(Error::NotPem("private key")),
    };
    match &der {
        PrivateKeyDer::Pkcs8(pkcs8) => {
            let pair = KeyPair::try_from(pkcs8).map_err(|_| Error::ReadKey)?;
            Ok((PrivateKey(Zeroizing::new(pem.to_owned())), pair))
        }
        PrivateKeyDer::Pkcs1(rsa) => wrapped(RSA_ENCRYPTION, None, rsa.secret_pkcs1_der()),
        // The curve named inside a SEC1 key is optional, so each is tried; ring accepts only the
        // one that fits the key.
        PrivateKeyDer::Sec1(ec) => CURVES
            .iter()
            .find_map(|curve| wrapped(EC_PUBLIC_KEY, Some(curve), ec.secret_sec1_der()).ok())
            .ok_or(Error::ReadKey),
        _ => Err(Error::ReadKey),
    }
}

/// Wraps an algorithm's own key form into PKCS#8 (RFC 5208, section 5).
fn wrapped(
    algorithm: &[u64],
    curve: Option<&[u64]>,
    key: &[u8],
) -> Result<(PrivateKey, KeyPair), Error> {
    let der = Zeroizing::new(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_sequence(|writer| {
                writer
                    .next()
                    .write_oid(&ObjectIdentifier::from_slice(algorithm));
                match curve {
                    Some(curve) => writer
                        .next()
                        .write_oid(&ObjectIdentifier::from_slice(curve)),
                    None => writer.next().write_null(),
                }
            });
            writer.next().write_bytes(key);
        });
    }));
    let pair =
        KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.as_slice())).map_err(|_| Error::ReadKey)?;
    Ok((PrivateKey::from_pair(&pair), pair))
}
