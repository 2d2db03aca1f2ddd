use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use crate::key::read_key;
use crate::{Error, PrivateKey};

/// The key pair that signs and verifies service-account tokens: kube-apiserver
/// `--service-account-signing-key-file` and `--service-account-key-file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountKey {
    private: PrivateKey,
    public: String,
}

impl ServiceAccountKey {
    /// Makes a new ECDSA P-256 key, so that tokens are signed with ES256.
    ///
    /// # Errors
    /// [`Error::Sign`] when the machine has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Sign)?;
        Ok(Self {
            private: PrivateKey::from_pair(&pair),
            public: pair.public_key_pem(),
        })
    }

    /// Reads an existing pair: `private` as [`PrivateKey::from_pem`], `public` as
    /// `-----BEGIN PUBLIC KEY-----`, kept byte for byte.
    ///
    /// `public` may hold further keys, whose tokens remain accepted; one must belong to `private`.
    ///
    /// # Errors
    /// As [`PrivateKey::from_pem`], and [`Error::PublicKeyMismatch`].
    pub fn from_pem(private: &str, public: &str) -> Result<Self, Error> {
        let (private, pair) = read_key(private)?;
        let wanted = pair.subject_public_key_info();
        let keys = SubjectPublicKeyInfoDer::pem_slice_iter(public.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::NotPem("public key"))?;
        if keys.is_empty() {
            return Err(Error::NotPem("public key"));
        }
        if !keys.iter().any(|key| key.as_ref() == wanted) {
            return Err(Error::PublicKeyMismatch);
        }
        Ok(Self {
            private,
            public: public.to_owned(),
        })
    }

    /// The signing key, as PKCS#8 PEM.
    #[must_use]
    pub fn private_pem(&self) -> &PrivateKey {
        &self.private
    }

    /// The verification key, as `SubjectPublicKeyInfo` PEM.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public
    }
}
