//! What can go wrong with a pool, and what to do about it.

use std::error::Error as StdError;
use std::io;

use jiff::Timestamp;
use stoker_api::StorageId;
use tonic::Status;

use crate::answer::Answer;
use crate::owner::Owner;
use crate::version::Refusal;

/// A failure of the pool. Every message says what to do; none contains a key or a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration lists no endpoint.
    #[error("the pool has no endpoint; list at least one as host:port")]
    NoEndpoints,
    /// An endpoint is not `host:port`.
    #[error("endpoint {endpoint:?} is not host:port without a scheme")]
    InvalidEndpoint {
        /// The endpoint as configured.
        endpoint: String,
    },
    /// A certificate or key is not usable PEM.
    #[error(
        "the certificates for the pool cannot be used; \
         check that CA, client certificate and key are PEM and belong together"
    )]
    InvalidCredentials(#[source] Box<dyn StdError + Send + Sync>),
    /// Nothing listens at the endpoint.
    #[error(
        "{endpoint} refuses connections; check that etcd runs there and that the port is right"
    )]
    ConnectionRefused {
        /// The endpoint as configured.
        endpoint: String,
    },
    /// The endpoint does not answer in time, or its name does not resolve.
    #[error("{endpoint} does not answer ({reason}); check its name, the network and etcd there")]
    Unreachable {
        /// The endpoint as configured.
        endpoint: String,
        /// The deepest cause the connection gave.
        reason: String,
    },
    /// The member's certificate does not verify against the configured CA.
    #[error(
        "the certificate of {endpoint} is not trusted ({reason}); \
         check the pool's CA, and that the certificate names this host"
    )]
    UntrustedCertificate {
        /// The endpoint as configured.
        endpoint: String,
        /// What the verification said.
        reason: String,
    },
    /// The member does not accept our client certificate.
    #[error(
        "{endpoint} refuses the client certificate ({reason}); \
         check that it is signed by etcd's trusted CA and has not expired"
    )]
    ClientCertificateRefused {
        /// The endpoint as configured.
        endpoint: String,
        /// The TLS alert it sent.
        reason: String,
    },
    /// The member has no leader, so nothing can be written.
    #[error("{endpoint} has no leader; bring back enough etcd members for a majority")]
    NoLeader {
        /// The endpoint as configured.
        endpoint: String,
    },
    /// Everyone may read and write everything.
    #[error(
        "authentication is off, so tenants are not kept apart; \
         create user root with role root and run `etcdctl auth enable`"
    )]
    AuthDisabled,
    /// Our client certificate is not that of a user with role root.
    #[error(
        "the client certificate has no root rights; \
         its common name must be an etcd user that has the role root"
    )]
    NotRoot,
    /// A member's version does not keep tenants apart.
    #[error("{endpoint} runs etcd {version:?}: {refusal}")]
    BelowFloor {
        /// The endpoint as configured.
        endpoint: String,
        /// The version it reports.
        version: String,
        /// Why it is refused.
        refusal: Refusal,
    },
    /// Two endpoints belong to different etcd clusters.
    #[error("{endpoint} and {other} are different etcd clusters; list members of one cluster only")]
    DifferentClusters {
        /// The first endpoint.
        endpoint: String,
        /// One that is of another cluster.
        other: String,
    },
    /// The pool has used up its space quota and takes no writes.
    #[error("the pool is full; compact and defragment it, raise its quota, then disarm the alarm")]
    OutOfSpace,
    /// The members do not hold the same data.
    #[error(
        "the pool has raised the alarm CORRUPT: its members do not hold the same data; \
         follow etcd's guide to data corruption, then disarm the alarm"
    )]
    Corrupt,
    /// The storage id belongs to someone else.
    #[error(
        "storage id {id} belongs to {owner}{}; choose another id, or delete that owner first",
        retained(*.retained_until)
    )]
    AlreadyOwned {
        /// The id.
        id: StorageId,
        /// Who has it.
        owner: Box<Owner>,
        /// Set when that owner is gone and its data is kept until then.
        retained_until: Option<Timestamp>,
    },
    /// An id that was asked for by name is unknown: identities are never reused, nor made up.
    #[error(
        "the pool knows no storage id {id}: nothing of it is kept here, or its retention is over; leave the id out for a new tenant"
    )]
    NothingToAdopt {
        /// The id.
        id: StorageId,
    },
    /// The deletion of the id's data has begun.
    #[error("the data of storage id {id} is being deleted; choose another id")]
    BeingPurged {
        /// The id.
        id: StorageId,
    },
    /// There are keys below the id's prefix but no record of an owner.
    #[error(
        "storage id {id} has {keys} keys but no owner record, so nothing is deleted; \
         find out whose they are and delete them by hand"
    )]
    Unowned {
        /// The id.
        id: StorageId,
        /// How many keys there are.
        keys: u64,
    },
    /// The owner record is not what we wrote.
    #[error("the owner record of storage id {id} is damaged; restore {} by hand", crate::owner::owner_key(.id))]
    DamagedOwnerRecord {
        /// The id.
        id: StorageId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The range to delete is not exactly one tenant's.
    #[error(
        "refusing to delete {start:?} to {end:?}: not one tenant's range; report this as a bug"
    )]
    UnsafeRange {
        /// The first key.
        start: String,
        /// The key after the last.
        end: String,
    },
    /// Someone else changed the owner record at the same time.
    #[error("the owner record of storage id {id} changed meanwhile; it will be tried again")]
    Contended {
        /// The id.
        id: StorageId,
    },
    /// Keys appeared while a prefix was being purged.
    #[error("storage id {id} still has {keys} keys after its deletion; it will be tried again")]
    NotEmptied {
        /// The id.
        id: StorageId,
        /// How many keys are left.
        keys: u64,
    },
    /// etcd answered a call with an error that has no variant of its own.
    #[error("etcd refused to {action}")]
    Refused {
        /// What was asked, as a verb and its object.
        action: &'static str,
        /// What etcd answered.
        #[source]
        source: Box<etcd_client::Error>,
    },
}

fn retained(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| {
        format!(", deleted, data kept until {until}")
    })
}

impl Error {
    /// A closed set of words for conditions and metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoEndpoints | Self::InvalidEndpoint { .. } => "InvalidEndpoints",
            Self::InvalidCredentials(_) => "InvalidCredentials",
            Self::ConnectionRefused { .. } => "ConnectionRefused",
            Self::Unreachable { .. } => "Unreachable",
            Self::UntrustedCertificate { .. } => "UntrustedCertificate",
            Self::ClientCertificateRefused { .. } => "ClientCertificateRefused",
            Self::NoLeader { .. } => "NoLeader",
            Self::AuthDisabled => "AuthDisabled",
            Self::NotRoot => "NotRoot",
            Self::BelowFloor { .. } => "VersionBelowFloor",
            Self::DifferentClusters { .. } => "DifferentClusters",
            Self::OutOfSpace => "OutOfSpace",
            Self::Corrupt => "Corrupt",
            Self::AlreadyOwned { .. } => "StorageIdOwned",
            Self::NothingToAdopt { .. } => "NothingToAdopt",
            Self::BeingPurged { .. } => "StorageIdPurging",
            Self::Unowned { .. } => "StorageIdUnowned",
            Self::DamagedOwnerRecord { .. } => "OwnerRecordDamaged",
            Self::UnsafeRange { .. } => "UnsafeRange",
            Self::Contended { .. } => "Contended",
            Self::NotEmptied { .. } => "NotEmptied",
            Self::Refused { .. } => "PoolRefused",
        }
    }

    /// Whether the pool as a whole is concerned, not one storage id: whoever watches it should look again.
    #[must_use]
    pub fn is_of_pool(&self) -> bool {
        !matches!(
            self,
            Self::AlreadyOwned { .. }
                | Self::NothingToAdopt { .. }
                | Self::BeingPurged { .. }
                | Self::Unowned { .. }
                | Self::DamagedOwnerRecord { .. }
                | Self::UnsafeRange { .. }
                | Self::Contended { .. }
                | Self::NotEmptied { .. }
        )
    }

    /// Whether the same call may succeed soon without anyone changing the configuration.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ConnectionRefused { .. }
            | Self::Unreachable { .. }
            | Self::NoLeader { .. }
            | Self::Contended { .. }
            | Self::NotEmptied { .. } => true,
            Self::Refused { source, .. } => {
                matches!(source.as_ref(), etcd_client::Error::GRpcStatus(status)
                    if Answer::of(status) == Answer::TryAgain)
            }
            _ => false,
        }
    }
}

/// Finds out why a connection failed from the chain of its causes, where one says it clearly.
pub(crate) fn connection_error(endpoint: &str, error: &(dyn StdError + 'static)) -> Option<Error> {
    let endpoint = endpoint.to_owned();
    for cause in causes(error) {
        if let Some(tls) = tls_error(cause) {
            let reason = tls.to_string();
            return match tls {
                rustls::Error::AlertReceived(_) => {
                    Some(Error::ClientCertificateRefused { endpoint, reason })
                }
                rustls::Error::InvalidCertificate(_) => {
                    Some(Error::UntrustedCertificate { endpoint, reason })
                }
                _ => None,
            };
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return Some(Error::ConnectionRefused { endpoint });
        }
    }
    None
}

/// What the last of the causes says.
pub(crate) fn deepest(status: &Status) -> String {
    match status.source().and_then(|source| causes(source).last()) {
        Some(cause) => cause.to_string(),
        None => status.message().to_owned(),
    }
}

fn causes<'error>(
    error: &'error (dyn StdError + 'static),
) -> impl Iterator<Item = &'error (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// rustls errors come directly or wrapped into an I/O error, which does not name them as source.
fn tls_error<'error>(error: &'error (dyn StdError + 'static)) -> Option<&'error rustls::Error> {
    error.downcast_ref::<rustls::Error>().or_else(|| {
        let io = error.downcast_ref::<io::Error>()?;
        io.get_ref()?.downcast_ref::<rustls::Error>()
    })
}
