//! Reading a tenant's Secrets, and having pods see them when they changed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use stoker_api::labels::{KEY_FINALIZER, TENANT};
use stoker_api::tenant::Tenant;
use stoker_control_plane::{ExistingSecrets, Names, SecretData};
use stoker_kube::Stored;

use super::error::Error;
use crate::FIELD_MANAGER;
use crate::context::Context;
use crate::finalizer::set_finalizer;

/// Set on control-plane pods when a mounted Secret changed: a kubelet then refreshes the pod's
/// volumes at once, which it otherwise does about once a minute.
const REFRESHED: &str = "stoker.dev/secrets-refreshed";

/// Secrets of a namespace that are listed to learn their names.
const FEW: u32 = 50;

/// A tenant's own Secrets as just read, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantSecrets {
    read: BTreeMap<String, Secret>,
    /// What takes the place of those that are lost.
    restored: ExistingSecrets,
}

impl TenantSecrets {
    /// Reads what a pass over `tenant` needs: of one that has lived all that carry its label, and its keys
    /// whether labelled or not; of a new one the keys alone, which a first pass that was cut off made, or
    /// people put there beforehand, as far as they are `there`. Certificates of a cut-off pass are simply issued again.
    ///
    /// # Errors
    /// The management API refused.
    pub(super) async fn read(
        tenant: &Tenant,
        born: bool,
        there: &NamesThere,
        ctx: &Context,
    ) -> Result<Self, Error> {
        let failed = |error| Error::ReadSecrets(Box::new(error));
        let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
        let mut found = Vec::new();
        if born {
            let params = ListParams::default().labels(&format!("{TENANT}={}", tenant.name));
            found = secrets.list(&params).await.map_err(failed)?.items;
        }
        let names = Names::of(tenant);
        let is_missing = |name: &&str| {
            !found.iter().any(|secret| secret.name_any() == *name) && (born || there.may_have(name))
        };
        let missing: Vec<&str> = names
            .irreplaceable()
            .into_iter()
            .filter(is_missing)
            .collect();
        let more = missing.into_iter().map(|name| secrets.get_opt(name));
        let more = futures::future::try_join_all(more).await.map_err(failed)?;
        let ours = found.into_iter().chain(more.into_iter().flatten());
        let ours = ours.filter(|secret| is_ours(secret, &tenant.uid));
        Ok(Self {
            read: ours.map(|secret| (secret.name_any(), secret)).collect(),
            restored: ExistingSecrets::new(),
        })
    }

    /// Takes `entries` for what `name` is lost of. Once: what is no good even so is lost.
    pub(super) fn restore(&mut self, name: &str, entries: &SecretData) -> bool {
        let entries = entries.clone();
        self.restored.insert(name.to_owned(), entries).is_none()
    }

    /// The names of those that were restored.
    pub(super) fn restored(&self) -> Vec<&str> {
        self.restored.keys().map(String::as_str).collect()
    }

    /// Their entries.
    pub(super) fn data(&self) -> ExistingSecrets {
        let mut data: ExistingSecrets = self
            .read
            .iter()
            .map(|(name, secret)| (name.clone(), entries(secret)))
            .collect();
        data.extend(self.restored.clone());
        data
    }

    /// How `wanted` was read; `None` when there was none, or when it only waits to be released.
    pub(super) fn stored(&self, wanted: &Secret) -> Option<Stored> {
        let secret = self.read.get(&wanted.name_any())?;
        if secret.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Stored {
            metadata: secret.metadata.clone(),
            same_content: secret.data == wanted.data,
        })
    }

    /// Whether `wanted` was there with other entries.
    pub(super) fn differs(&self, wanted: &Secret) -> bool {
        self.read
            .get(&wanted.name_any())
            .is_some_and(|secret| secret.data != wanted.data)
    }

    /// Those that somebody deleted and that wait for us to let them go.
    pub(super) fn leaving(&self) -> Vec<&str> {
        let leaving = self.read.iter().filter(|(_, secret)| {
            secret.metadata.deletion_timestamp.is_some() && is_guarded(&secret.metadata)
        });
        leaving.map(|(name, _)| name.as_str()).collect()
    }
}

/// Names of the Secrets in a namespace, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(super) struct NamesThere(Option<BTreeSet<String>>);

impl NamesThere {
    /// Asks for them all at once: a new tenant's namespace has few, mostly none. Where there are many, each has to be
    /// asked for.
    ///
    /// # Errors
    /// The management API refused.
    pub(super) async fn list(namespace: &str, ctx: &Context) -> Result<Self, Error> {
        let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
        let params = ListParams::default().limit(FEW);
        let page = secrets.list_metadata(&params).await;
        let page = page.map_err(|error| Error::ReadSecrets(Box::new(error)))?;
        let is_all = page.metadata.continue_.unwrap_or_default().is_empty();
        let names = page.items.iter().map(ResourceExt::name_any).collect();
        Ok(Self(is_all.then_some(names)))
    }

    /// Whether there may be a Secret of this name.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// The entries of a Secret.
pub(super) fn entries(secret: &Secret) -> SecretData {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

fn is_guarded(metadata: &ObjectMeta) -> bool {
    let finalizers = metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|name| name == KEY_FINALIZER)
}

/// Lets a Secret of keys go: takes our finalizer off it, if it is that of the tenant with this uid.
///
/// # Errors
/// The management API refused, or somebody changed the Secret at the same time.
pub(super) async fn release(
    name: &str,
    namespace: &str,
    uid: &str,
    ctx: &Context,
) -> Result<(), Error> {
    let failed = |error| Error::ReleaseKeys(Box::new(error));
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(found) = secrets.get_metadata_opt(name).await.map_err(failed)? else {
        return Ok(());
    };
    if !is_guarded(&found.metadata) || !is_owned(found.owner_references(), uid) {
        return Ok(());
    }
    let written = set_finalizer(&secrets, &found.metadata, KEY_FINALIZER, false).await;
    written.map_err(failed)
}

/// Whether a Secret is the tenant's with this uid, or nobody's yet. What a former tenant of the same name left behind
/// belongs to another uid and is about to be collected.
pub(super) fn is_ours(secret: &Secret, uid: &str) -> bool {
    is_owned(secret.owner_references(), uid)
}

fn is_owned(owners: &[OwnerReference], uid: &str) -> bool {
    owners
        .iter()
        .all(|owner| owner.controller != Some(true) || owner.uid == uid)
}

/// Has the kubelets show the changed Secrets now. Only a convenience: they would within a minute.
pub(super) async fn refresh_pods(namespace: &str, names: &[String], ctx: &Context) {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let patch = serde_json::json!({ "metadata": { "annotations": {
        REFRESHED: Timestamp::now().to_string(),
    }}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    for name in names {
        if let Err(error) = pods
            .patch_metadata(name, &params, &Patch::Merge(&patch))
            .await
        {
            tracing::debug!(pod = name, error = %error, "pod not refreshed");
        }
    }
}
