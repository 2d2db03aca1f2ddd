//! Reading a tenant's Secrets, and having pods see them when they changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use stoker_api::labels::TENANT;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{ExistingSecrets, Names};
use stoker_kube::Stored;

use super::error::Error;
use super::state::{TenantState, lock};
use crate::FIELD_MANAGER;
use crate::context::Context;

/// Set on control-plane pods when a mounted Secret changed: a kubelet then refreshes the pod's
/// volumes at once, which it otherwise does about once a minute.
const REFRESHED: &str = "stoker.dev/secrets-refreshed";

/// A tenant's own Secrets as just read, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantSecrets(BTreeMap<String, Secret>);

impl TenantSecrets {
    /// Reads what a pass over `tenant` needs: of one that has lived all that carry its label, and its keys
    /// whether labelled or not; of a new one the keys alone, which a first pass that was cut off made, or
    /// people put there beforehand. Certificates of a cut-off pass are simply issued again.
    ///
    /// # Errors
    /// The management API refused.
    pub(super) async fn read(tenant: &Tenant, born: bool, ctx: &Context) -> Result<Self, Error> {
        let failed = |error| Error::ReadSecrets(Box::new(error));
        let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
        let mut found = Vec::new();
        if born {
            let params = ListParams::default().labels(&format!("{TENANT}={}", tenant.name));
            found = secrets.list(&params).await.map_err(failed)?.items;
        }
        let names = Names::of(tenant);
        let is_missing = |name: &&str| !found.iter().any(|secret| secret.name_any() == *name);
        let missing: Vec<&str> = names
            .irreplaceable()
            .into_iter()
            .filter(is_missing)
            .collect();
        let more = missing.into_iter().map(|name| secrets.get_opt(name));
        let more = futures::future::try_join_all(more).await.map_err(failed)?;
        let ours = found.into_iter().chain(more.into_iter().flatten());
        Ok(Self(
            ours.filter(|secret| is_ours(secret, &tenant.uid))
                .map(|secret| (secret.name_any(), secret))
                .collect(),
        ))
    }

    /// Their entries.
    pub(super) fn data(&self) -> ExistingSecrets {
        let entries = |secret: &Secret| {
            let data = secret.data.iter().flatten();
            data.map(|(key, value)| (key.clone(), value.0.clone()))
                .collect()
        };
        self.0
            .iter()
            .map(|(name, secret)| (name.clone(), entries(secret)))
            .collect()
    }

    /// How `wanted` was read.
    pub(super) fn stored(&self, wanted: &Secret) -> Option<Stored> {
        let secret = self.0.get(&wanted.name_any())?;
        Some(Stored {
            metadata: secret.metadata.clone(),
            same_content: secret.data == wanted.data,
        })
    }

    /// Whether `wanted` was there with other entries.
    pub(super) fn differs(&self, wanted: &Secret) -> bool {
        self.0
            .get(&wanted.name_any())
            .is_some_and(|secret| secret.data != wanted.data)
    }
}

/// Whether a Secret is the tenant's with this uid, or nobody's yet. What a former tenant of the same name left behind
/// belongs to another uid and is about to be collected.
pub(super) fn is_ours(secret: &Secret, uid: &str) -> bool {
    let owners = secret.owner_references();
    owners
        .iter()
        .all(|owner| owner.controller != Some(true) || owner.uid == uid)
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
