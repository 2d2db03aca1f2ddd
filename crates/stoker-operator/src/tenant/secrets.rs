//! Reading a tenant's Secrets, and having pods see them when they changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use stoker_api::labels::TENANT;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{ExistingSecrets, Names, SecretData};

use super::error::Error;
use super::state::{TenantState, lock};
use crate::FIELD_MANAGER;
use crate::context::Context;

/// Set on control-plane pods when a mounted Secret changed: a kubelet then refreshes the pod's
/// volumes at once, which it otherwise does about once a minute.
const REFRESHED: &str = "stoker.dev/secrets-refreshed";

/// All Secrets that carry the tenant's label.
///
/// # Errors
/// The management API refused.
pub(super) async fn read_secrets(tenant: &Tenant, ctx: &Context) -> Result<ExistingSecrets, Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    let params = ListParams::default().labels(&format!("{TENANT}={}", tenant.name));
    let list = secrets
        .list(&params)
        .await
        .map_err(|error| Error::ReadSecrets(Box::new(error)))?;
    let mut existing: ExistingSecrets = list
        .items
        .into_iter()
        .filter(|secret| is_ours(secret, &tenant.uid))
        .map(named_data)
        .collect();
    // A key whose label was taken away is not lost.
    if Names::of(tenant)
        .irreplaceable()
        .iter()
        .any(|name| !existing.contains_key(*name))
    {
        existing.extend(read_keys(tenant, ctx).await?);
    }
    Ok(existing)
}

/// The irreplaceable keys by name, labelled or not: a first pass that was cut off made them, or people put
/// them there beforehand. Certificates of a cut-off pass are simply issued again.
pub(super) async fn read_keys(tenant: &Tenant, ctx: &Context) -> Result<ExistingSecrets, Error> {
    let names = Names::of(tenant);
    let keys = names.irreplaceable();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    let found = futures::future::try_join_all(keys.into_iter().map(|name| secrets.get_opt(name)));
    let found = found
        .await
        .map_err(|error| Error::ReadSecrets(Box::new(error)))?;
    Ok(found
        .into_iter()
        .flatten()
        .filter(|secret| is_ours(secret, &tenant.uid))
        .map(named_data)
        .collect())
}

/// Whether a Secret is the tenant's with this uid, or nobody's yet. What a former tenant of the same name left behind
/// belongs to another uid and is about to be collected.
pub(super) fn is_ours(secret: &Secret, uid: &str) -> bool {
    let owners = secret.owner_references();
    owners
        .iter()
        .all(|owner| owner.controller != Some(true) || owner.uid == uid)
}

fn named_data(secret: Secret) -> (String, SecretData) {
    let data = secret.data.unwrap_or_default();
    let name = secret.metadata.name.unwrap_or_default();
    (
        name,
        data.into_iter()
            .map(|(key, value)| (key, value.0))
            .collect(),
    )
}

pub(super) fn mounted_changed(existing: &ExistingSecrets, wanted: &[Secret]) -> bool {
    wanted.iter().any(|secret| {
        let before = secret
            .metadata
            .name
            .as_ref()
            .and_then(|name| existing.get(name));
        before.is_some_and(|before| {
            let after: BTreeMap<&String, &Vec<u8>> = secret
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key, &value.0))
                .collect();
            before.iter().collect::<BTreeMap<_, _>>() != after
        })
    })
}

/// Has the kubelets show the changed Secrets now. Only a convenience: they would within a minute.
pub(super) async fn refresh_pods(tenant: &Tenant, state: &TenantState, ctx: &Context) {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    let names: Vec<String> = lock(&state.pods).names().map(str::to_owned).collect();
    let patch = serde_json::json!({ "metadata": { "annotations": {
        REFRESHED: Timestamp::now().to_string(),
    }}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    for name in names {
        if let Err(error) = pods
            .patch_metadata(&name, &params, &Patch::Merge(&patch))
            .await
        {
            tracing::debug!(pod = name, error = %error, "pod not refreshed");
        }
    }
}
