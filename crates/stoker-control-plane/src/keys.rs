//! Keys that cannot be replaced once a tenant lives: what they sign and encrypt outlives them.

use std::str::Utf8Error;

use stoker_api::tenant::Tenant;
use stoker_pki::{Authority, ServiceAccountKey};
use time::{Duration, OffsetDateTime};

use crate::objects::{ExistingSecrets, SecretData};
use crate::{EncryptionError, EncryptionKeys, Names, entry};

/// Lifetime of an authority: ten years, as kubeadm's.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);

/// A tenant's irreplaceable keys.
///
/// Nodes and kubeconfigs trust the authority, every token in the tenant was signed with the
/// service-account key, and what is in the pool can be read with the encryption keys only.
#[derive(Debug)]
pub struct Keys {
    /// Signs the certificates of the API server, components, people and nodes.
    pub certificate_authority: Authority,
    /// Signs the certificate by which the API server proves itself to aggregated API servers.
    pub front_proxy_authority: Authority,
    /// Signs service-account tokens.
    pub service_account: ServiceAccountKey,
    /// Encrypts Secrets at rest.
    pub encryption: EncryptionKeys,
}

/// What is wrong with a Secret of keys.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    /// There is no such Secret.
    #[error("is missing")]
    Missing,
    /// The Secret lacks an entry.
    #[error("lacks {0}")]
    Lacks(&'static str),
    /// An entry is not text.
    #[error("is damaged: {0} is not text")]
    NotText(&'static str, #[source] Utf8Error),
    /// A key or certificate in it cannot be used.
    #[error("is damaged: {0}")]
    Damaged(#[from] stoker_pki::Error),
    /// The encryption configuration in it cannot be used.
    #[error("is damaged: {0}")]
    Encryption(#[from] EncryptionError),
}

/// Why a tenant's keys could not be had. Nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A living tenant's keys are gone or damaged.
    #[error(
        "Secret {secret} {reason}; the tenant lives by these keys and new ones would cut it off: \
         restore the Secret from backup"
    )]
    Lost {
        /// Name of the Secret.
        secret: String,
        /// What is wrong with it.
        reason: Loss,
    },
    /// The tenant is not born yet, and a Secret that was there before is damaged.
    #[error("Secret {secret} {reason}; mend it, or delete it to have new keys made")]
    Damaged {
        /// Name of the Secret.
        secret: String,
        /// What is wrong with it.
        reason: Loss,
    },
    /// New keys could not be made.
    #[error("cannot make the keys of Secret {secret}")]
    Generate {
        /// Name of the Secret.
        secret: String,
        /// Why.
        #[source]
        source: stoker_pki::Error,
    },
}

/// Reads a tenant's keys from `existing` Secrets.
///
/// `born` says that the tenant may have used its keys: then they must all be there. Before, missing
/// ones are made; a cluster authority that people put there first is used, whether as `ca.crt` and
/// `ca.key` or as `tls.crt` and `tls.key`.
///
/// # Errors
/// [`KeysError::Lost`] when `born` and a key is missing or damaged, [`KeysError::Damaged`] when not
/// `born` and one is damaged, [`KeysError::Generate`] when the machine has no randomness.
pub fn keys(
    tenant: &Tenant,
    existing: &ExistingSecrets,
    born: bool,
    now: OffsetDateTime,
) -> Result<Keys, KeysError> {
    let names = Names::of(tenant);
    let source = Source { existing, born };
    Ok(Keys {
        certificate_authority: source.get(&names.ca, cluster_authority, || {
            Authority::generate("kubernetes", AUTHORITY_LIFETIME, now)
        })?,
        front_proxy_authority: source.get(&names.front_proxy_ca, front_proxy_authority, || {
            Authority::generate("front-proxy-ca", AUTHORITY_LIFETIME, now)
        })?,
        service_account: source.get(
            &names.service_account_keys,
            service_account,
            ServiceAccountKey::generate,
        )?,
        encryption: source.get(&names.encryption, encryption, || {
            EncryptionKeys::generate(&tenant.encryption)
        })?,
    })
}

struct Source<'a> {
    existing: &'a ExistingSecrets,
    born: bool,
}

impl Source<'_> {
    fn get<T>(
        &self,
        name: &str,
        read: impl FnOnce(&SecretData) -> Result<T, Loss>,
        generate: impl FnOnce() -> Result<T, stoker_pki::Error>,
    ) -> Result<T, KeysError> {
        let secret = name.to_owned();
        match (self.existing.get(name), self.born) {
            (Some(data), true) => read(data).map_err(|reason| KeysError::Lost { secret, reason }),
            (Some(data), false) => {
                read(data).map_err(|reason| KeysError::Damaged { secret, reason })
            }
            (None, true) => Err(KeysError::Lost {
                secret,
                reason: Loss::Missing,
            }),
            (None, false) => generate().map_err(|source| KeysError::Generate { secret, source }),
        }
    }
}

fn cluster_authority(data: &SecretData) -> Result<Authority, Loss> {
    let ours = data.contains_key(entry::CA_CERTIFICATE) || data.contains_key(entry::CA_KEY);
    let theirs = data.contains_key(entry::TLS_CERTIFICATE) || data.contains_key(entry::TLS_KEY);
    let (certificate, key) = if theirs && !ours {
        (entry::TLS_CERTIFICATE, entry::TLS_KEY)
    } else {
        (entry::CA_CERTIFICATE, entry::CA_KEY)
    };
    Ok(Authority::from_pem(
        text(data, certificate)?,
        text(data, key)?,
    )?)
}

fn front_proxy_authority(data: &SecretData) -> Result<Authority, Loss> {
    let certificate = text(data, entry::FRONT_PROXY_CA_CERTIFICATE)?;
    Ok(Authority::from_pem(
        certificate,
        text(data, entry::FRONT_PROXY_CA_KEY)?,
    )?)
}

fn service_account(data: &SecretData) -> Result<ServiceAccountKey, Loss> {
    let private = text(data, entry::SERVICE_ACCOUNT_PRIVATE)?;
    Ok(ServiceAccountKey::from_pem(
        private,
        text(data, entry::SERVICE_ACCOUNT_PUBLIC)?,
    )?)
}

fn encryption(data: &SecretData) -> Result<EncryptionKeys, Loss> {
    let configuration = text(data, entry::ENCRYPTION)?;
    let record = data.contains_key(entry::ENCRYPTION_RECORD);
    let record = record
        .then(|| text(data, entry::ENCRYPTION_RECORD))
        .transpose()?;
    Ok(EncryptionKeys::read(configuration, record)?)
}

fn text<'a>(data: &'a SecretData, name: &'static str) -> Result<&'a str, Loss> {
    let bytes = data.get(name).ok_or(Loss::Lacks(name))?;
    std::str::from_utf8(bytes).map_err(|error| Loss::NotText(name, error))
}
