//! Why a pass over a tenant failed.

use std::error::Error as StdError;

use stoker_control_plane::KeysError;
use stoker_pki::EscrowError;

use crate::contained::Panicked;

/// Why a pass failed. The category becomes the condition's reason, the message its message.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot record the tenant's identity")]
    RecordIdentity(#[source] Box<kube::Error>),
    #[error("the tenant is being deleted, or another one has its name by now")]
    Leaving,
    #[error("another operator has recorded an identity at the same time: it is read again")]
    RecordedOtherwise,
    #[error("no randomness to mint a storage id from")]
    MintStorageId,
    #[error(
        "the recorded storage id {0:?} is not one: restore the status or the Secret from backup"
    )]
    CorruptStorageId(String),
    #[error("cannot read the tenant's Secrets")]
    ReadSecrets(#[source] Box<kube::Error>),
    #[error("cannot read the tenant's Service")]
    ReadService(#[source] Box<kube::Error>),
    #[error("cannot take the tenant out of the wake requests")]
    AnswerWakeRequest(#[source] Box<kube::Error>),
    #[error("{0}")]
    Keys(#[from] stoker_control_plane::KeysError),
    #[error("{keys}; {copy}")]
    Lost { keys: KeysError, copy: String },
    #[error("the escrow copy of the tenant's keys {0}")]
    Escrow(#[from] EscrowError),
    #[error("cannot release the tenant's key Secrets")]
    ReleaseKeys(#[source] Box<kube::Error>),
    #[error("cannot issue certificates")]
    Certificates(#[from] stoker_pki::Error),
    #[error("the pool refused")]
    Pool(#[from] stoker_etcd::Error),
    #[error("{message}")]
    PoolAway {
        reason: &'static str,
        message: String,
    },
    #[error("{0}")]
    Apply(#[from] stoker_kube::Error),
    #[error("cannot turn an object into JSON")]
    Serialize(#[from] serde_json::Error),
    #[error(
        "the tenant's API server took longer than {0:?} to accept our objects: is an admission webhook of the tenant hanging?"
    )]
    InsideTimeout(std::time::Duration),
    #[error("cannot write inside the tenant")]
    Inside(#[source] stoker_kube::Error),
    #[error("cannot resolve {endpoint}, the name that the load balancer published")]
    Resolve {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Patch(#[from] stoker_tenant::PatchError),
    #[error(
        "the pass took longer than {0:?} and was cut off; it is tried again: does the management cluster answer?"
    )]
    PassTimeout(std::time::Duration),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("cannot delete")]
    Delete(#[source] Box<kube::Error>),
}

impl Error {
    /// CamelCase reason for conditions and events.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::RecordIdentity(_) | Self::RecordedOtherwise => "IdentityNotRecorded",
            Self::Leaving => "Leaving",
            Self::MintStorageId | Self::Keys(KeysError::Generate { .. }) => "NoRandomness",
            Self::CorruptStorageId(_) => "CorruptStorageId",
            Self::ReadSecrets(_) => "SecretsUnreadable",
            Self::ReadService(_) => "ServiceUnreadable",
            Self::AnswerWakeRequest(_) => "WakeRequestNotAnswered",
            Self::Lost { .. } | Self::Keys(KeysError::Lost { .. }) => "KeyLost",
            Self::Escrow(_) => "EscrowUnreadable",
            Self::ReleaseKeys(_) => "KeysNotReleased",
            Self::Keys(KeysError::Damaged { .. }) => "KeyDamaged",
            Self::Certificates(_) => "CertificatesNotIssued",
            Self::Pool(error) => error.category(),
            Self::PoolAway { reason, .. } => reason,
            Self::Apply(error) => error.category(),
            Self::Serialize(_) => "Internal",
            Self::InsideTimeout(_) => "TenantTooSlow",
            Self::Inside(_) => "TenantNotConfigured",
            Self::Resolve { .. } => "EndpointUnresolved",
            Self::Patch(_) => "InvalidPatch",
            Self::PassTimeout(_) => "PassTimeout",
            Self::Panicked(_) => Panicked::CATEGORY,
            Self::Delete(_) => "DeletionFailed",
        }
    }

    /// The error with its causes, for people. Of what an API server says only its message.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            let said = api_message(cause);
            let cause_text = said.clone().unwrap_or_else(|| cause.to_string());
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            if said.is_some() {
                break;
            }
            source = cause.source();
        }
        text
    }
}

fn api_message(cause: &(dyn StdError + 'static)) -> Option<String> {
    let boxed = cause.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
    match boxed.or_else(|| cause.downcast_ref::<kube::Error>())? {
        kube::Error::Api(status) => Some(status.message.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_an_api_server_says_only_the_message_is_shown() {
        let status = kube::core::Status::failure("port 7 is not in the range", "Invalid");
        let error = Error::ReadService(Box::new(kube::Error::Api(status.with_code(422).boxed())));
        assert_eq!(
            error.describe(),
            "cannot read the tenant's Service: port 7 is not in the range"
        );
    }

    #[test]
    fn causes_are_named_once() {
        let cause = std::io::Error::other("no such host");
        let endpoint = "a.example".to_owned();
        let error = Error::Resolve {
            endpoint,
            source: cause,
        };
        assert_eq!(
            error.describe(),
            "cannot resolve a.example, the name that the load balancer published: no such host"
        );
    }
}
