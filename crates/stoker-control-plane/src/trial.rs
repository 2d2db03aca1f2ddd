//! What a spec would give, to be tried out before there is anything of the tenant: with keys and a pool that stand in
//! for its own.

use std::sync::OnceLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_pki::Authority;
use time::{Duration, OffsetDateTime};

use crate::deployment::deployment;
use crate::{
    ExistingSecrets, Inputs, Keys, KeysError, Storage, exposure, ingress, keys, leaves, service,
    storage_client_request,
};

/// The pool's authority is thrown away with the process.
const LIFETIME: Duration = Duration::days(365);

/// Keys and a pool that are nobody's. Nothing made with them is ever stored.
#[derive(Debug, Default)]
pub struct StandIns(OnceLock<(Keys, Storage)>);

/// The objects whose content people shape by a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The pods, but for what follows from keys.
    pub deployment: Deployment,
    /// The Service.
    pub service: Service,
    /// The `Ingress`, where one is asked for.
    pub ingress: Option<Ingress>,
}

/// Why a trial could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The machine has no randomness.
    #[error("cannot make keys that stand in for the tenant's")]
    Keys(#[from] KeysError),
    /// A certificate cannot be issued, as for a name that no certificate can hold.
    #[error("{0}")]
    Certificate(#[from] stoker_pki::Error),
}

impl StandIns {
    fn get(&self, tenant: &Tenant, now: OffsetDateTime) -> Result<&(Keys, Storage), TrialError> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        let made = (
            keys(tenant, &ExistingSecrets::new(), false, now)?,
            storage(now)?,
        );
        Ok(self.0.get_or_init(|| made))
    }
}

fn storage(now: OffsetDateTime) -> Result<Storage, stoker_pki::Error> {
    let authority = Authority::generate("trial", LIFETIME, now)?;
    let id = StorageId::random().map_err(stoker_pki::Error::Random)?;
    let client = authority.issue(&storage_client_request(&id), now)?;
    Ok(Storage {
        id,
        data_store: "trial".to_owned(),
        endpoints: vec!["192.0.2.1:2379".to_owned()],
        certificate_authority: authority.certificate().to_owned(),
        client,
    })
}

/// Builds what `tenant` would give. With the same `stand_ins`, equal tenants give equal objects.
///
/// # Errors
/// [`TrialError`].
pub fn trial(
    tenant: &Tenant,
    warden_image: &str,
    stand_ins: &StandIns,
    now: OffsetDateTime,
) -> Result<Trial, TrialError> {
    let (keys, storage) = stand_ins.get(tenant, now)?;
    let exposure = exposure(tenant, None, None);
    let leaves = leaves(tenant, keys, &exposure, &ExistingSecrets::new(), now)?;
    Ok(Trial {
        deployment: deployment(&Inputs {
            tenant,
            keys,
            leaves: &leaves,
            exposure: &exposure,
            storage,
            warden_image,
            kubelets_verified: false,
        }),
        service: service(tenant),
        ingress: ingress(tenant),
    })
}
