//! Reading what a kubeconfig is made from.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{Names, generated_name};

use crate::context::Context;

/// What was found. Three reads.
#[derive(Default)]
pub struct Found {
    /// The tenant's authority.
    pub authority: Option<Secret>,
    /// Its kubeconfigs, with its addresses.
    pub admin: Option<Secret>,
    /// What stands where the kubeconfig belongs.
    pub existing: Option<Secret>,
}

/// Reads for the kubeconfig that `generator` asks for.
///
/// # Errors
/// The management API refused.
pub async fn read(
    tenant: &TenantControlPlane,
    generator: &str,
    ctx: &Context,
) -> Result<Found, kube::Error> {
    let name = tenant.name_any();
    let names = Names::of_named(&name);
    let existing = generated_name(&name, generator);
    let namespace = tenant.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let (authority, admin, existing) = tokio::try_join!(
        secrets.get_opt(&names.ca),
        secrets.get_opt(&names.admin_kubeconfig),
        secrets.get_opt(&existing),
    )?;
    Ok(Found {
        authority,
        admin,
        existing,
    })
}
