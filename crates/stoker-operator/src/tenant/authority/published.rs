//! What aggregated API servers go by. API servers add what they believe to the `ConfigMap` that says it, and take nothing away
//! before it has expired (`pkg/controlplane/controller/clusterauthenticationtrust`): a former authority would be believed there
//! for years.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stoker_control_plane::{AuthorityRole, RotatingAuthority};
use stoker_pki::pins;

use crate::FIELD_MANAGER;
use crate::tenant::inside::Inside;
use crate::tenant::state::TenantState;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Takes away what is not of these authorities. Once each API server believes them alone: others would add theirs again.
///
/// # Errors
/// In words: why it is not known to be so.
pub(super) async fn keep_only(
    authorities: &[impl AsRef<RotatingAuthority>],
    state: &TenantState,
) -> Result<(), String> {
    let client = match &*state.inside.lock().await {
        Inside::Open { connection, .. } => connection.client.clone(),
        Inside::Closed | Inside::Starting { .. } => {
            return Err("no API server is connected".to_owned());
        }
    };
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let found = maps.get_opt(NAME).await;
    let found = found.map_err(|error| format!("{NAME} cannot be read: {error}"))?;
    // One that is not there is made with what the API servers believe.
    let Some(found) = found else { return Ok(()) };
    let other = others(&found.data.unwrap_or_default(), authorities);
    if other.is_empty() {
        return Ok(());
    }
    let patch = json!({
        "metadata": { "resourceVersion": found.metadata.resource_version },
        "data": other,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(patch);
    let written = maps.patch_metadata(NAME, &params, &patch).await;
    written
        .map(drop)
        .map_err(|error| format!("{NAME} cannot be written: {error}"))
}

/// The entries with a certificate that these authorities do not have, as they should be. API servers order them as they like,
/// and leave out what has expired.
fn others(
    data: &BTreeMap<String, String>,
    authorities: &[impl AsRef<RotatingAuthority>],
) -> BTreeMap<&'static str, String> {
    let wanted = authorities.iter().map(|authority| {
        let authority = authority.as_ref();
        let entry = match authority.role() {
            AuthorityRole::Cluster => "client-ca-file",
            AuthorityRole::FrontProxy => "requestheader-client-ca-file",
        };
        (entry, authority.trusted())
    });
    wanted
        .filter(|(entry, trusted)| {
            let known = pins(trusted).unwrap_or_default();
            let found = data.get(*entry).map(|text| pins(text));
            found.is_some_and(|found| {
                found.map_or(true, |found| found.iter().any(|pin| !known.contains(pin)))
            })
        })
        .collect()
}
