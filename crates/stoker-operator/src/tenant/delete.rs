//! Deleting a tenant, in an order that loses nothing by accident: stop the pods, which need not drain → settle the data
//! (purge it, or keep it for its retention) with user and role revoked → let the object go, and
//! with it, by owner reference, everything made for it. Every step may be cut off and run again.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::ApiResource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::StorageId;
use stoker_api::labels::{ABANDON_DATA, FINALIZER, MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::v1alpha1::{TenantControlPlane, VersionState};
use stoker_control_plane::Names;
use stoker_etcd::Owner;
use stoker_kube::conditions;

use super::error::Error;
use super::escrow::{self, Copy};
use super::inside::Inside;
use super::secrets::{entries, release};
use super::state::{TenantState, lock};
use super::status::stuck;
use super::{claim, identity, rollout};
use crate::context::Context;
use crate::data_store::OpenPool;
use crate::data_store::pools::Entry;
use crate::metrics::{Controller, Outcome};

/// Time for a pod of a deleted tenant to end, seconds.
const HURRY_SECONDS: u32 = 1;
/// Pods announce their end; this is only the net under that.
const RECHECK: Duration = Duration::from_secs(5);
/// The usual wait of a deletion; every other reason is a problem.
const STOPPING_PODS: &str = "StoppingPods";

/// Takes the next step of a deletion, and says on the object what keeps it.
///
/// # Errors
/// The management API or the pool failed; the step is tried again.
pub async fn delete(
    object: &TenantControlPlane,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
) -> Result<Action, Error> {
    rollout::leave(&ObjectRef::from_obj(object), ctx);
    let taken = next_step(object, state, ctx).await;
    if let Err(error) = &taken {
        let message = explain(error, lock(&state.storage_id).as_ref());
        if let Err(unsaid) = say(object, ctx, error.category(), &message).await {
            tracing::warn!(error = %unsaid, "failure of the deletion not said on the object");
        }
    }
    taken
}

/// What failed, and the way out that a person has.
fn explain(error: &Error, id: Option<&StorageId>) -> String {
    let text = error.describe();
    let abandon = match (error, id) {
        (Error::CorruptStorageId(recorded), _) => recorded.as_str(),
        (Error::Pool(_) | Error::Escrow(_), Some(id)) => id.as_str(),
        _ => return text,
    };
    format!(
        "{text}; it is tried again. To leave the data behind for ever, annotate this object with {ABANDON_DATA}={abandon}"
    )
}

async fn next_step(
    object: &TenantControlPlane,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
) -> Result<Action, Error> {
    if state.is_let_go() || !object.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    *state.inside.lock().await = Inside::Closed;
    state.unsettle();
    if !stop_pods(object, ctx).await? {
        say(
            object,
            ctx,
            STOPPING_PODS,
            "waiting for the control-plane pods to end",
        )
        .await?;
        return Ok(Action::requeue(RECHECK));
    }
    if let Some(id) = identity(object, state, ctx).await? {
        match way_out(object, &id, ctx) {
            WayOut::Pool(open) => settle_data(object, &id, &open, ctx).await?,
            WayOut::Abandon => tell_abandoned(object, id.as_str(), ctx).await,
            WayOut::Blocked(message) => {
                say(object, ctx, "DeletionBlocked", &message).await?;
                ctx.metrics.finished(Controller::Tenant, Outcome::Waiting);
                return Ok(Action::requeue(RECHECK * 6));
            }
        }
    }
    let namespace = object.namespace().unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    for name in Names::of_named(&object.name_any()).irreplaceable() {
        release(name, &namespace, &uid, ctx).await?;
    }
    // Not left to garbage collection: a tenant of the same name made next must find nothing of this one.
    let ours = format!(
        "{TENANT}={},{MANAGED_BY}={MANAGED_BY_VALUE}",
        object.name_any()
    );
    let kinds = [
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<ConfigMap>(&()),
    ];
    ctx.writer
        .delete_labelled(&kinds, Some(&namespace), &ours)
        .await?;
    let tenants: Api<TenantControlPlane> = Api::namespaced(ctx.client.clone(), &namespace);
    match identity::set_finalizer(object, &tenants, false).await {
        Ok(()) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(Error::Delete(Box::new(error))),
    }
    state.let_go();
    tracing::info!("tenant deleted");
    ctx.metrics.finished(Controller::Tenant, Outcome::Done);
    Ok(Action::await_change())
}

/// Deletes the Deployment; true once no pod is left, asked of the API and not of a cache.
async fn stop_pods(object: &TenantControlPlane, ctx: &Context) -> Result<bool, Error> {
    let failed = |error| Error::Delete(Box::new(error));
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let deployments: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = deployments.get_metadata_opt(&name).await.map_err(failed)?;
    let ours = found.filter(|deployment| {
        deployment
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == object.meta().uid.as_ref())
    });
    if let Some(deployment) = ours {
        if deployment.metadata.deletion_timestamp.is_none() {
            match deployments.delete(&name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        return Ok(false);
    }
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = ListParams::default().labels(&format!("{TENANT}={name}"));
    let left = pods.list_metadata(&params).await.map_err(failed)?;
    for pod in &left.items {
        hurry(&pods, &pod.metadata).await.map_err(failed)?;
    }
    Ok(left.items.is_empty())
}

/// Gives a pod that is ending no time to drain: nobody is to be served by it any more.
async fn hurry(pods: &Api<Pod>, pod: &ObjectMeta) -> Result<(), kube::Error> {
    let ending = pod.deletion_timestamp.is_some();
    let long = pod.deletion_grace_period_seconds > Some(HURRY_SECONDS.into());
    if !ending || !long {
        return Ok(());
    }
    let only_this = Preconditions {
        uid: pod.uid.clone(),
        resource_version: None,
    };
    let params = DeleteParams::default()
        .grace_period(HURRY_SECONDS)
        .preconditions(only_this);
    let name = pod.name.as_deref().unwrap_or_default();
    match pods.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

enum WayOut {
    Pool(Arc<OpenPool>),
    Abandon,
    Blocked(String),
}

/// The identity that this process has recorded, or the object says now: the cache may lag behind. `None` when
/// there is nothing in any pool, or a person gives up what a damaged record may mean.
async fn identity(
    object: &TenantControlPlane,
    state: &TenantState,
    ctx: &Context,
) -> Result<Option<StorageId>, Error> {
    if let Some(id) = lock(&state.storage_id).clone() {
        return Ok(Some(id));
    }
    let namespace = object.namespace().unwrap_or_default();
    let tenants: Api<TenantControlPlane> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = tenants.get_opt(&object.name_any()).await;
    let found = found.map_err(|error| Error::Delete(Box::new(error)))?;
    let found = found.filter(|found| found.uid() == object.uid());
    let latest = found.as_ref().unwrap_or(object);
    let config_secret = Names::of_named(&object.name_any()).datastore_config;
    match identity::recorded(latest, &ctx.client, &config_secret).await {
        Err(Error::CorruptStorageId(text)) if is_abandoned(object, &text) => {
            tell_abandoned(object, &text, ctx).await;
            Ok(None)
        }
        recorded => {
            let id = recorded?;
            lock(&state.storage_id).clone_from(&id);
            Ok(id)
        }
    }
}

/// Whether a person leaves the data of this id behind.
fn is_abandoned(object: &TenantControlPlane, id: &str) -> bool {
    let annotation = object.annotations().get(ABANDON_DATA);
    annotation.is_some_and(|value| value == id)
}

async fn tell_abandoned(object: &TenantControlPlane, id: &str, ctx: &Context) {
    let note = format!("data of storage id {id} is left behind, as {ABANDON_DATA} asks");
    ctx.events
        .publish(
            &object.object_ref(&()),
            true,
            "DataAbandoned",
            "Delete",
            &note,
        )
        .await;
}

/// How the data can be settled. Only a person may decide to leave it behind.
fn way_out(object: &TenantControlPlane, id: &StorageId, ctx: &Context) -> WayOut {
    if is_abandoned(object, id.as_str()) {
        return WayOut::Abandon;
    }
    let store = crate::data_store::reconcile::data_store_of(object).unwrap_or_default();
    let problem = match ctx.pools.get(store) {
        Some(Entry::Open(open)) => match &open.problem {
            None => return WayOut::Pool(open),
            Some((_, message)) => message.clone(),
        },
        Some(Entry::Closed(_, message)) => message,
        None => "it does not exist or was not looked at yet".to_owned(),
    };
    WayOut::Blocked(format!(
        "the data cannot be settled while DataStore {store:?} is not ready ({problem}): mend it, or, to leave the data behind for ever, annotate this object with {ABANDON_DATA}={id}"
    ))
}

async fn settle_data(
    object: &TenantControlPlane,
    id: &StorageId,
    open: &OpenPool,
    ctx: &Context,
) -> Result<(), Error> {
    let owner = claim::owner(object);
    let retention = object.spec.deletion.data_retention_seconds.max(0);
    if retention == 0 {
        return purge(id, &owner, open).await;
    }
    let until = Timestamp::now()
        .checked_add(SignedDuration::from_secs(retention))
        .unwrap_or(Timestamp::MAX);
    keep_keys(object, id, open, ctx).await?;
    match open.pool.retain(id, &owner, until).await {
        Ok(_) => {}
        // An earlier pass, told to keep nothing, has begun to purge: there is no way back.
        Err(error) if error.category() == "StorageIdPurging" => {
            return purge(id, &owner, open).await;
        }
        Err(error) if nothing_of_ours(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    tracing::info!(storage_id = %id, until = %until, "data kept for its retention");
    let note = format!("data of storage id {id} is kept until {until}");
    ctx.events
        .publish(
            &object.object_ref(&()),
            false,
            "DataRetained",
            "Delete",
            &note,
        )
        .await;
    Ok(())
}

/// Makes sure of the escrow copy of the keys, without which the data could not be read again. One that is there was
/// made from keys that were seen to be good, and stays as it is.
async fn keep_keys(
    object: &TenantControlPlane,
    id: &StorageId,
    open: &OpenPool,
    ctx: &Context,
) -> Result<(), Error> {
    if open.pool.escrow(id).await?.is_some() {
        return Ok(());
    }
    let tenant = object.name_any();
    let names = Names::of_named(&tenant);
    let wanted = names.irreplaceable();
    let secrets: Api<Secret> =
        Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let mut found = Vec::new();
    for name in wanted {
        let secret = secrets.get_opt(name).await;
        let secret = secret.map_err(|error| Error::ReadSecrets(Box::new(error)))?;
        let kept = secret.filter(|secret| secret.data.is_some());
        found.extend(kept.map(|secret| (name, entries(&secret))));
    }
    let copy = Copy::of(&tenant, found);
    if copy.len() > 0 {
        escrow::keep(id, &copy, &open.pool, &ctx.escrow_key, true).await?;
    }
    if copy.len() < wanted.len() {
        let note = format!(
            "only {} of the {} Secrets with keys of storage id {id} were still there: its data is kept, but what they encrypted may be unreadable",
            copy.len(),
            wanted.len()
        );
        ctx.events
            .publish(
                &object.object_ref(&()),
                true,
                "KeysNotRetained",
                "Delete",
                &note,
            )
            .await;
    }
    Ok(())
}

async fn purge(id: &StorageId, owner: &Owner, open: &OpenPool) -> Result<(), Error> {
    match open.pool.purge(id, owner).await {
        Ok(purged) => tracing::info!(storage_id = %id, keys = purged.keys, "data purged"),
        Err(error) if nothing_of_ours(&error) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The id belongs to another tenant: this one never got it, and leaves it alone.
fn nothing_of_ours(error: &stoker_etcd::Error) -> bool {
    error.category() == "StorageIdOwned"
}

/// Says on the object where the deletion stands.
async fn say(
    object: &TenantControlPlane,
    ctx: &Context,
    reason: &'static str,
    message: &str,
) -> Result<(), Error> {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let now = Timestamp::now();
    status.kubernetes_resources.version.status = VersionState::Deleting;
    conditions::set(
        &mut status.conditions,
        "Ready",
        false,
        reason,
        message,
        generation,
        now,
    );
    let deleted_at = object.meta().deletion_timestamp.as_ref().map(|time| time.0);
    stuck::mark(&mut status, deleted_at, None, generation, now);
    let written =
        stoker_kube::write_status(&ctx.client, object, object.status.as_ref(), &status).await;
    match written {
        Ok(true) => {
            let problem = reason != STOPPING_PODS;
            ctx.events
                .publish(&object.object_ref(&()), problem, reason, "Delete", message)
                .await;
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
