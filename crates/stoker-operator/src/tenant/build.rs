//! From what a pass has read to what it applies. Pure: no request, no clock.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{
    self as control_plane, AuthorityRole, EncryptionKeys, Exposure, Keys, RotatingAuthority,
    Storage,
};
use stoker_etcd::Escrow;
use stoker_kube::{Desired, Stored};
use time::OffsetDateTime;

use super::error::Error;
use super::escrow::Copy;
use super::secrets::{TenantSecrets, entries};
use super::storage_client::storage_client;
use super::store::Place;
use crate::metrics::CertificateDates;

/// What a control plane is built from.
pub(super) struct Materials<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) id: &'a StorageId,
    pub(super) place: &'a Place,
    pub(super) exposure: &'a Exposure,
    /// The tenant's Secrets as just read.
    pub(super) existing: &'a TenantSecrets,
    /// Whether its keys must all be there.
    pub(super) born: bool,
    /// Whether its API servers verify the certificates that kubelets serve.
    pub(super) kubelets_verified: bool,
    /// Image of the process of ours in the pods.
    pub(super) warden_image: &'a str,
    /// What takes the place of keys that were read.
    pub(super) next: Option<&'a NextKeys>,
}

/// Keys that change by our own doing, each by one step.
pub(super) enum NextKeys {
    /// What encrypts.
    Encryption(EncryptionKeys),
    /// What signs certificates.
    Authorities(Vec<Arc<RotatingAuthority>>),
}

impl NextKeys {
    /// Whether they are the change of `keys` that comes next.
    pub(super) fn follows(&self, keys: &Keys) -> bool {
        match self {
            Self::Encryption(next) => next.follows(&keys.encryption),
            Self::Authorities(all) => all.iter().all(|next| next.follows(of(keys, next.role()))),
        }
    }

    fn take_place(&self, keys: &mut Keys) {
        match self {
            Self::Encryption(next) => keys.encryption = next.clone(),
            Self::Authorities(all) => {
                for next in all {
                    match next.role() {
                        AuthorityRole::Cluster => keys.certificate_authority = next.clone(),
                        AuthorityRole::FrontProxy => keys.front_proxy_authority = next.clone(),
                    }
                }
            }
        }
    }
}

fn of(keys: &Keys, role: AuthorityRole) -> &RotatingAuthority {
    match role {
        AuthorityRole::Cluster => &keys.certificate_authority,
        AuthorityRole::FrontProxy => &keys.front_proxy_authority,
    }
}

/// What is applied, in this order.
pub(super) struct Wanted {
    /// The irreplaceable keys, and how each was read.
    pub(super) keys: Vec<(Desired, Option<Stored>)>,
    /// Their copy for the escrow.
    pub(super) copy: Copy,
    /// The copy that it replaces, where the keys change by our own doing.
    pub(super) replaces: Option<Escrow>,
    /// Whatever else the pods mount.
    pub(super) mounted: Vec<Desired>,
    /// The pods.
    pub(super) deployment: Deployment,
    /// Whether running pods mount something that changes.
    pub(super) changes_mounted: bool,
    /// When the first certificate is due.
    pub(super) renew_at: OffsetDateTime,
    /// The keys themselves.
    pub(super) tenant_keys: Keys,
}

impl Wanted {
    /// What names the keys.
    pub(super) fn digests(&self) -> Vec<[u8; 32]> {
        self.keys.iter().map(|(key, _)| *key.digest()).collect()
    }

    /// Dates of the certificates in it.
    pub(super) fn dates(&self) -> CertificateDates {
        let cluster = self.tenant_keys.certificate_authority.signer().not_after();
        let front_proxy = self.tenant_keys.front_proxy_authority.signer().not_after();
        CertificateDates {
            renew_at: self.renew_at,
            authorities_end: cluster.min(front_proxy),
        }
    }
}

/// Builds it.
///
/// # Errors
/// A key is lost or damaged, or a certificate cannot be issued.
pub(super) fn build(materials: &Materials<'_>, now: OffsetDateTime) -> Result<Wanted, Error> {
    let &Materials {
        tenant,
        id,
        place,
        exposure,
        existing,
        born,
        kubelets_verified,
        warden_image,
        next,
    } = materials;
    let data = existing.data();
    let mut keys = control_plane::keys(tenant, &data, born, now)?;
    if let Some(next) = next {
        next.take_place(&mut keys);
    }
    let leaves = control_plane::leaves(tenant, &keys, exposure, &data, now)?;
    let (client, client_renew_at) = storage_client(tenant, id, &place.open.authority, &data, now)?;
    let credentials = &place.open.credentials;
    let storage = Storage {
        id: id.clone(),
        data_store: place.name.clone(),
        endpoints: credentials.endpoints.clone(),
        certificate_authority: credentials.authority_certificate.clone(),
        client,
    };
    let objects = control_plane::build(&control_plane::Inputs {
        tenant,
        keys: &keys,
        leaves: &leaves,
        exposure,
        storage: &storage,
        kubelets_verified,
        warden_image,
    });
    let read = |secret: &Secret| Ok((Desired::of(secret)?, existing.stored(secret)));
    let mut mounted = Vec::new();
    for secret in &objects.secrets {
        mounted.push(Desired::of(secret)?);
    }
    for config_map in &objects.config_maps {
        mounted.push(Desired::of(config_map)?);
    }
    Ok(Wanted {
        keys: objects
            .keys
            .iter()
            .map(read)
            .collect::<Result<_, serde_json::Error>>()?,
        copy: copy(tenant, &objects.keys),
        replaces: None,
        mounted,
        changes_mounted: objects
            .secrets
            .iter()
            .chain(&objects.keys)
            .any(|secret| existing.differs(secret)),
        deployment: objects.deployment,
        renew_at: leaves.renew_at.min(client_renew_at),
        tenant_keys: keys,
    })
}

fn copy(tenant: &Tenant, keys: &[Secret]) -> Copy {
    let named = keys
        .iter()
        .filter_map(|secret| Some((secret.metadata.name.as_deref()?, entries(secret))));
    Copy::of(&tenant.name, named)
}
