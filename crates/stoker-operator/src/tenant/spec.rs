//! Whether a spec can be served at all: what schema and CEL cannot say.

use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;

/// Why not: a reason for a condition, and what to change.
pub(crate) type Refusal = (&'static str, String);

/// The tenant, if its spec can be served.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn served(object: &TenantControlPlane) -> Result<Tenant, Refusal> {
    let tenant = Tenant::validate(object).map_err(|no| ("InvalidSpec", no.to_string()))?;
    stoker_tenant::check_patches(&tenant).map_err(|no| ("InvalidPatch", no.to_string()))?;
    stoker_control_plane::check_authentication(&tenant)
        .map_err(|no| ("InvalidAuthentication", no.to_string()))?;
    Ok(tenant)
}
