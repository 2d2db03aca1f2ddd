//! Where a tenant's state lives, as its API servers see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use stoker_api::StorageId;
use stoker_pki::{KeyedCertificate, LeafRequest, LeafUsage};
use time::Duration;

/// Where a tenant's state lives, as its API servers see it.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The tenant's identity in the pool.
    pub id: StorageId,
    /// Name of the `DataStore`.
    pub data_store: String,
    /// Members of the pool, `host:port`.
    pub endpoints: Vec<String>,
    /// PEM of the authorities that the pool's serving certificates are checked against.
    pub certificate_authority: String,
    /// The tenant's client certificate in the pool, made from [`storage_client_request`].
    pub client: KeyedCertificate,
}

impl Storage {
    /// As `kube-apiserver --etcd-servers` wants them.
    pub(crate) fn servers(&self) -> String {
        let urls: Vec<_> = self
            .endpoints
            .iter()
            .map(|endpoint| format!("https://{endpoint}"))
            .collect();
        urls.join(",")
    }
}

/// A destination that control-plane pods may reach for their pool.
///
/// A `NetworkPolicy` sees a packet after a Service has been resolved, so an endpoint that is a
/// Service of the management cluster is given by its pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoragePeer {
    /// A host.
    Address {
        /// Its address.
        ip: IpAddr,
        /// TCP port.
        port: u16,
    },
    /// Pods of a namespace of the management cluster.
    Pods {
        /// Name of the namespace.
        namespace: String,
        /// Labels that a pod must have, as a Service's selector says them. Without any no pod is meant.
        labels: BTreeMap<String, String>,
        /// TCP port of the pods.
        port: PodPort,
    },
}

impl StoragePeer {
    /// The address of a host; `None` of pods.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { ip, .. } => Some(*ip),
            Self::Pods { .. } => None,
        }
    }
}

/// A port as pods know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodPort {
    /// By number.
    Number(u16),
    /// By the name that the containers give it.
    Name(String),
}

/// What the tenant's client certificate in the pool must be: the common name is the etcd user
/// (`etcd --client-cert-auth`). The operator has it signed by the pool's authority.
#[must_use]
pub fn storage_client_request(id: &StorageId) -> LeafRequest {
    LeafRequest {
        common_name: id.user().to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: Duration::days(365),
    }
}
