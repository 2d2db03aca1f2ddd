//! Keys that cannot be replaced once a tenant lives: what they sign and encrypt outlives them.

use std::str::Utf8Error;
use std::sync::Arc;

use stoker_api::tenant::Tenant;
use stoker_pki::{Authority, ServiceAccountKey};
use time::OffsetDateTime;

use crate::objects::{ExistingSecrets, SecretData};
use crate::{
    AuthorityRecordError, AuthorityRole, EncryptionError, EncryptionKeys, Names, RotatingAuthority,
    entry,
};

/// A tenant's irreplaceable keys.
///
/// Nodes and kubeconfigs trust the authority, every token in the tenant was signed with the
/// service-account key, and what is in the pool can be read with the encryption keys only.
#[derive(Debug)]
pub struct Keys {
    /// Signs the certificates of the API server, components, people and nodes.
    pub certificate_authority: Arc<RotatingAuthority>,
    /// Signs the certificate by which the API server proves itself to aggregated API servers.
    pub front_proxy_authority: Arc<RotatingAuthority>,
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
    /// The record of an authority's changes cannot be used.
    #[error("is damaged: {0}")]
    Record(#[from] AuthorityRecordError),
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
    let wanted = tenant.certificate_authority.generation;
    // One that people put there is the one that is wanted; one that has lived without a record is the first.
    let unrecorded = if born { 0 } else { wanted };
    let authority = |name: &str, role| {
        let read = |data: &SecretData| authority(data, role, unrecorded);
        let make = || RotatingAuthority::generate(role, wanted, now);
        source.get(name, read, make).map(Arc::new)
    };
    Ok(Keys {
        certificate_authority: authority(&names.ca, AuthorityRole::Cluster)?,
        front_proxy_authority: authority(&names.front_proxy_ca, AuthorityRole::FrontProxy)?,
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

/// Keys that change by steps, of a tenant that has lived, as a Secret or a copy of it has them.
#[derive(Debug)]
pub enum StoredKeys {
    /// What signs certificates.
    Authority(Box<RotatingAuthority>),
    /// What encrypts.
    Encryption(Box<EncryptionKeys>),
}

impl StoredKeys {
    /// Reads the Secret `name` of a tenant; `None` for another one, or one that is no good.
    #[must_use]
    pub fn read(names: &Names, name: &str, data: &SecretData) -> Option<Self> {
        let read = |role| {
            let found = authority(data, role, 0).ok()?;
            Some(Self::Authority(Box::new(found)))
        };
        if name == names.ca {
            read(AuthorityRole::Cluster)
        } else if name == names.front_proxy_ca {
            read(AuthorityRole::FrontProxy)
        } else if name == names.encryption {
            let found = encryption(data).ok()?;
            Some(Self::Encryption(Box::new(found)))
        } else {
            None
        }
    }

    /// Whether these are what became of `before`: of keys that encrypt by one change, since what is stored may be of `before`;
    /// of an authority by any number.
    #[must_use]
    pub fn succeed(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Authority(after), Self::Authority(before)) => after.descends_from(before),
            (Self::Encryption(after), Self::Encryption(before)) => after.follows(before),
            _ => false,
        }
    }
}

fn authority(
    data: &SecretData,
    role: AuthorityRole,
    unrecorded: i64,
) -> Result<RotatingAuthority, Loss> {
    let [certificate, key, record] = role.entries();
    if data.contains_key(record) {
        let (record, key) = (text(data, record)?, text(data, key)?);
        return Ok(RotatingAuthority::read(role, record, key)??);
    }
    let (certificate, key) = match role {
        AuthorityRole::Cluster => cluster_entries(data),
        AuthorityRole::FrontProxy => (certificate, key),
    };
    let signer = Authority::from_pem(text(data, certificate)?, text(data, key)?)?;
    Ok(RotatingAuthority::born(role, signer, unrecorded))
}

/// Where people may have put an authority of theirs.
fn cluster_entries(data: &SecretData) -> (&'static str, &'static str) {
    let ours = data.contains_key(entry::CA_CERTIFICATE) || data.contains_key(entry::CA_KEY);
    let theirs = data.contains_key(entry::TLS_CERTIFICATE) || data.contains_key(entry::TLS_KEY);
    if theirs && !ours {
        (entry::TLS_CERTIFICATE, entry::TLS_KEY)
    } else {
        (entry::CA_CERTIFICATE, entry::CA_KEY)
    }
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
