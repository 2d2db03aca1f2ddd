//! The tenant's identity and place in the pool: recorded first, then claimed.

use kube::ResourceExt;
use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_control_plane::Names;
use stoker_etcd::Owner;
use tokio::sync::SemaphorePermit;

use super::error::Error;
use super::identity;
use super::secrets::NamesThere;
use super::state::{TenantState, lock};
use super::status::{Check, Findings};
use super::store::Place;
use crate::context::Context;

/// A tenant's identity, and whether it has lived under it.
pub(super) struct Identity {
    pub(super) id: StorageId,
    /// Whether its keys were made: from then on a missing one is lost.
    pub(super) born: bool,
    /// Which Secrets its namespace had before it was known here.
    pub(super) there: NamesThere,
}

/// Whether the tenant's keys were once recorded as made.
#[must_use]
pub(super) fn is_born(object: &TenantControlPlane, state: &TenantState) -> bool {
    let says = |status: &TenantControlPlaneStatus| !status.certificates.ca.secret_name.is_empty();
    object.status.as_ref().is_some_and(says) || lock(&state.written).as_ref().is_some_and(says)
}

/// The recorded identity, or a new one that is recorded before anything else happens.
///
/// # Errors
/// It cannot be read, minted or recorded, or the pool cannot say whether it was used.
pub(super) async fn identify(
    object: &TenantControlPlane,
    tenant: &Tenant,
    place: &Place,
    state: &TenantState,
    ctx: &Context,
    findings: &mut Findings,
) -> Result<Identity, Error> {
    let known = lock(&state.storage_id).clone();
    let in_status = object
        .status
        .as_ref()
        .is_some_and(|status| status.storage.is_some());
    let mut there = NamesThere::default();
    if known.is_none() && !in_status {
        there = NamesThere::list(&tenant.namespace, ctx).await?;
    }
    let secret = Names::of(tenant).datastore_config;
    let recorded = match &known {
        Some(id) => Some(id.clone()),
        None if in_status || there.may_have(&secret) => {
            identity::recorded(object, &ctx.client, &secret).await?
        }
        None => None,
    };
    let adopted = tenant.storage_id.as_ref();
    if let (None, Some(id)) = (&recorded, adopted) {
        // Before it is recorded: an identity that is another's must not become this one's.
        place.open.pool.check_adoption(id, &owner(object)).await?;
    }
    if let (None, Some(id), false) = (&known, &recorded, in_status) {
        // From the Secret, which others may write.
        match place.open.pool.check_adoption(id, &owner(object)).await {
            // A pool restored from before its birth.
            Ok(()) | Err(stoker_etcd::Error::NothingToAdopt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let minted = recorded.is_none() && adopted.is_none();
    let id = recorded.or_else(|| adopted.cloned());
    let id = id.map_or_else(|| state.mint(), Ok)?;
    let storage = identity::storage_status(&id, &place.name, &tenant.name);
    if known.is_none() || !identity::has_finalizer(object) {
        identity::record(object, &ctx.client, &storage).await?;
        *lock(&state.storage_id) = Some(id.clone());
    }
    // Not before: an identity that could not be recorded under the finalizer must not get into status.
    findings.storage = Some(storage);
    // With the identity of a tenant that has lived come its keys: they are lost if they cannot be found, not to be made.
    let mut born = is_born(object, state) || adopted == Some(&id);
    if !born && !minted && place.open.problem.is_none() {
        // Status may have been lost. A place in the pool that holds keys was in use: whatever
        // cannot be found of this tenant's own keys is lost, not yet to be made.
        born = place.open.pool.usage(&id).await?.keys > 0;
    }
    Ok(Identity { id, born, there })
}

/// A turn among those who claim a place in the same pool; `None` where nothing is to be claimed.
pub(super) async fn pool_turn<'a>(
    ground: Option<&'a (Place, Identity)>,
    state: &TenantState,
) -> Option<SemaphorePermit<'a>> {
    let (place, _) = ground?;
    if state.is_claimed() || place.open.problem.is_some() {
        return None;
    }
    // Closed never: the semaphore lives as long as the pool is known.
    place.open.turns.acquire().await.ok()
}

/// Claims the place in the pool, where there is one, and says what to report of it; to be called in a [`pool_turn`].
///
/// # Errors
/// The pool refused, or has failed others meanwhile.
pub(super) async fn claim_place(
    object: &TenantControlPlane,
    ground: Option<&(Place, Identity)>,
    state: &TenantState,
    ctx: &Context,
) -> Result<Option<Check>, Error> {
    let Some((place, identity)) = ground else {
        return Ok(None);
    };
    let adopts = adopts(object, &identity.id, state);
    claim(object, &identity.id, adopts, place, state, ctx).await?;
    Ok(Some(match &place.open.problem {
        None => Check::holds("Claimed", format!("in {}", place.name)),
        Some((reason, message)) => {
            Check::fails(reason, format!("DataStore {}: {message}", place.name))
        }
    }))
}

/// Whether the tenant is about to take over the identity of one that was deleted.
#[must_use]
pub(super) fn adopts(object: &TenantControlPlane, id: &StorageId, state: &TenantState) -> bool {
    let asked = object.spec.data_store_schema.as_deref() == Some(id.as_str());
    asked && !is_born(object, state)
}

/// Makes sure of the tenant's place in the pool: once per life of this process, and again after its API
/// server or the pool was away.
///
/// # Errors
/// The pool refused, or has failed others meanwhile.
async fn claim(
    object: &TenantControlPlane,
    id: &StorageId,
    adopts: bool,
    place: &Place,
    state: &TenantState,
    ctx: &Context,
) -> Result<(), Error> {
    if place.open.problem.is_some() {
        state.set_claimed(false);
        return Ok(());
    }
    if state.is_claimed() {
        return Ok(());
    }
    if let Some((reason, message)) = ctx.pools.problem(&place.name) {
        let message = format!("DataStore {}: {message}", place.name);
        return Err(Error::PoolAway { reason, message });
    }
    let (pool, owner) = (&place.open.pool, owner(object));
    if adopts {
        pool.adopt(id, &owner).await?;
    } else {
        pool.claim(id, &owner).await?;
    }
    state.set_claimed(true);
    Ok(())
}

/// Who the owner record names.
#[must_use]
pub(super) fn owner(object: &TenantControlPlane) -> Owner {
    Owner {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        management_cluster: None,
    }
}
