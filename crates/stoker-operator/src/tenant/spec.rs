//! Whether a spec can be served at all: what schema and CEL cannot say.

use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_api::{BaseDomain, StorageId};

/// Why not: a reason for a condition, and what to change.
pub(crate) type Refusal = (&'static str, String);

/// The tenant, if its spec can be served by an operator with this base domain.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn served(
    object: &TenantControlPlane,
    domain: Option<&BaseDomain>,
) -> Result<Tenant, Refusal> {
    let tenant = Tenant::validate(object).map_err(|no| ("InvalidSpec", no.to_string()))?;
    stoker_tenant::check_patches(&tenant).map_err(|no| ("InvalidPatch", no.to_string()))?;
    let storage = object
        .status
        .as_ref()
        .and_then(|status| status.storage.as_ref());
    let recorded = storage.and_then(|storage| storage.setup.schema.parse::<StorageId>().ok());
    let id = recorded.or_else(|| tenant.storage_id.clone());
    let name = domain.zip(id).map(|(domain, id)| domain.name_of(&id));
    stoker_control_plane::check_authentication(&tenant, name.as_deref())
        .map_err(|no| ("InvalidAuthentication", no.to_string()))?;
    Ok(tenant)
}
