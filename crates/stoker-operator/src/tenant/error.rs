//! Why a pass over a tenant failed.

/// Why a pass failed. The category becomes the condition's reason, the message its message.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot record the tenant's identity: {0}")]
    RecordIdentity(#[source] Box<kube::Error>),
    #[error("no randomness to mint a storage id from")]
    MintStorageId,
    #[error(
        "the recorded storage id {0:?} is not one: restore the status or the Secret from backup"
    )]
    CorruptStorageId(String),
    #[error("cannot read the tenant's Secrets: {0}")]
    ReadSecrets(#[source] Box<kube::Error>),
    #[error("cannot read the tenant's Service: {0}")]
    ReadService(#[source] Box<kube::Error>),
    #[error("{0}")]
    Keys(#[from] stoker_control_plane::KeysError),
    #[error("cannot issue certificates: {0}")]
    Certificates(#[from] stoker_pki::Error),
    #[error("the pool refused: {0}")]
    Pool(#[from] stoker_etcd::Error),
    #[error("{0}")]
    Apply(#[from] stoker_kube::Error),
    #[error("cannot turn an object into JSON")]
    Serialize(#[from] serde_json::Error),
    #[error("the tenant's API server has not made its namespaces yet")]
    NamespacesPending,
    #[error(
        "the tenant's API server took longer than {0:?} to accept our objects: is an admission webhook of the tenant hanging?"
    )]
    InsideTimeout(std::time::Duration),
    #[error("cannot write inside the tenant: {0}")]
    Inside(#[source] stoker_kube::Error),
    #[error("cannot resolve the control-plane endpoint {endpoint}: {source}")]
    Resolve {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Patch(#[from] stoker_tenant::PatchError),
    #[error("cannot delete: {0}")]
    Delete(#[source] Box<kube::Error>),
}

impl Error {
    /// CamelCase reason for conditions and events.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::RecordIdentity(_) => "IdentityNotRecorded",
            Self::MintStorageId => "NoRandomness",
            Self::CorruptStorageId(_) => "CorruptStorageId",
            Self::ReadSecrets(_) => "SecretsUnreadable",
            Self::ReadService(_) => "ServiceUnreadable",
            Self::Keys(_) => "KeyLost",
            Self::Certificates(_) => "CertificatesNotIssued",
            Self::Pool(error) => error.category(),
            Self::Apply(error) => error.category(),
            Self::Serialize(_) => "Internal",
            Self::NamespacesPending => "NamespacesPending",
            Self::InsideTimeout(_) => "TenantTooSlow",
            Self::Inside(_) => "TenantNotConfigured",
            Self::Resolve { .. } => "EndpointUnresolved",
            Self::Patch(_) => "InvalidPatch",
            Self::Delete(_) => "DeletionFailed",
        }
    }
}
