//! The sealed copy of what people wrote of a tenant, in the pool: with the keys' copy beside it and the escrow key a
//! lost management cluster is built again (`recover`).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::ResourceExt;
use serde_json::{Value, json};
use stoker_api::StorageId;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_etcd::Pool;
use stoker_pki::{EscrowError, EscrowKey};
use zeroize::Zeroizing;

use super::claim::is_born;
use super::error::Error;
use super::state::{TenantState, lock};
use crate::context::Context;

/// What `kubectl apply` keeps for itself: the manifest once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What to apply to have the tenant again: as people wrote it, with its place in the pool. Of the status there is only
/// what no other object tells.
pub(super) fn of(
    object: &TenantControlPlane,
    id: &StorageId,
    data_store: &str,
) -> Result<Value, serde_json::Error> {
    let mut annotations = object.annotations().clone();
    annotations.remove(LAST_APPLIED);
    let mut spec = serde_json::to_value(&object.spec)?;
    spec["dataStore"] = json!(data_store);
    spec["dataStoreSchema"] = json!(id.as_str());
    let mut manifest = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": { "namespace": object.namespace(), "name": object.name_any() },
        "spec": spec,
    });
    for (field, texts) in [("labels", object.labels()), ("annotations", &annotations)] {
        if !texts.is_empty() {
            manifest["metadata"][field] = json!(texts);
        }
    }
    if are_unverified(object) {
        manifest["status"] = json!({ "kubeletsVerified": false });
    }
    Ok(manifest)
}

/// Whether the status says so of the certificates that kubelets serve.
fn are_unverified(object: &TenantControlPlane) -> bool {
    let status = object.status.as_ref();
    status.and_then(|status| status.kubelets_verified) == Some(false)
}

/// Everything [`of`] depends on, in few bytes: the generation stands for the spec.
fn edition(object: &TenantControlPlane, data_store: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.metadata.generation.hash(&mut hasher);
    object.metadata.labels.hash(&mut hasher);
    object.metadata.annotations.hash(&mut hasher);
    are_unverified(object).hash(&mut hasher);
    data_store.hash(&mut hasher);
    hasher.finish()
}

/// Keeps the copy up to date: nothing when this process has kept or seen the same. Of a tenant that is not born there is
/// none to compare with.
pub(super) async fn keep(
    object: &TenantControlPlane,
    id: &StorageId,
    data_store: &str,
    pool: &Pool,
    state: &TenantState,
    ctx: &Context,
) -> Result<(), Error> {
    let edition = edition(object, data_store);
    if *lock(&state.manifest) == Some(edition) {
        return Ok(());
    }
    let text = Zeroizing::new(serde_json::to_vec(&of(object, id, data_store)?)?);
    let stored = if is_born(object, state) {
        pool.manifest(id).await?
    } else {
        None
    };
    let key = &ctx.escrow_key;
    let same = |sealed: &Vec<u8>| {
        key.open(&what(id), sealed)
            .is_ok_and(|known| *known == *text)
    };
    if !stored.as_ref().is_some_and(same) {
        let sealed = key.seal(&what(id), &text)?;
        pool.keep_manifest(id, &sealed).await?;
    }
    *lock(&state.manifest) = Some(edition);
    Ok(())
}

/// The manifest in a copy.
///
/// # Errors
/// The copy was sealed with another key, is damaged, or is another tenant's.
pub(crate) fn open(id: &StorageId, sealed: &[u8], key: &EscrowKey) -> Result<Value, EscrowError> {
    let text = key.open(&what(id), sealed)?;
    // Whoever sealed it had the key and wrote JSON.
    serde_json::from_slice(&text).map_err(|_| EscrowError::Damaged)
}

/// What is copied under an id: it is authenticated with the copy.
fn what(id: &StorageId) -> String {
    format!("manifest of storage id {id}")
}
