//! The management side of a pass: the claim in the pool, the Service, then everything that the
//! control-plane pods mount, then the Deployment.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ApiResource;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use stoker_api::StorageId;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_control_plane::{self as control_plane, Exposure, Keys, Names, Storage};
use stoker_etcd::Owner;
use stoker_kube::Desired;
use time::OffsetDateTime;

use super::error::Error;
use super::identity;
use super::secrets::{mounted_changed, read_keys, read_secrets, refresh_pods};
use super::state::{Inputs, TenantState, lock};
use super::status::{Aspect, Findings};
use super::storage_client::storage_client;
use super::store::choose_store;
use crate::context::Context;
use crate::data_store::OpenPool;
use crate::metrics::Step;

/// Objects applied at the same time for one tenant.
const CONCURRENCY: usize = 16;
/// The management side after a pass.
pub struct Applied {
    /// Whether anything had to be applied.
    pub changed: bool,
    /// Where the API server is reached.
    pub exposure: Exposure,
    /// The tenant's keys, when this pass had to read them.
    pub keys: Option<Keys>,
}

/// Brings the management cluster and the pool to what the tenant wants. `None`: it waits for
/// something, as the findings say.
///
/// # Errors
/// The pool or the management API failed.
pub async fn apply(
    object: &TenantControlPlane,
    tenant: &Tenant,
    state: &Arc<TenantState>,
    ctx: &Context,
    findings: &mut Findings,
) -> Result<Option<Applied>, Error> {
    let mut born = is_born(object, state);
    let Some((store, open)) = choose_store(object, tenant, born, ctx, findings) else {
        return Ok(None);
    };
    let started = Instant::now();
    let (id, minted) = identify(object, tenant, state, ctx, &store, findings).await?;
    if !born && !minted && open.problem.is_none() {
        // Status may have been lost. A place in the pool that holds keys was in use: whatever
        // cannot be found of this tenant's own keys is lost, not yet to be made.
        born = open.pool.usage(&id).await?.keys > 0;
    }
    let (claim, service) = tokio::join!(
        claim(object, &id, &open, state),
        apply_service(tenant, state, ctx),
    );
    match (claim, &open.problem) {
        (Ok(()), None) => findings.holds(Aspect::DataStoreReady, "Claimed", format!("in {store}")),
        (_, Some((reason, message))) => {
            findings.fails(
                Aspect::DataStoreReady,
                reason,
                format!("DataStore {store}: {message}"),
            );
        }
        (Err(error), None) => return Err(error),
    }
    let exposure = control_plane::exposure(tenant, Some(&service?));
    findings.exposure = Some(exposure.clone());

    let inputs = Inputs {
        generation: tenant.generation,
        exposure: exposure.clone(),
        peers: open.peers.clone(),
        endpoints: open.credentials.endpoints.clone(),
        pool_authority: open.credentials.authority_certificate.clone(),
        management_networks: ctx.management_networks.borrow().clone(),
    };
    findings.applied = born;
    let applied = "every object of the control plane is applied";
    if state.is_settled(&inputs, OffsetDateTime::now_utc()) {
        findings.applied = true;
        findings.deployment = deployment(tenant, ctx);
        findings.holds(Aspect::ControlPlaneApplied, "Applied", applied);
        return Ok(Some(Applied {
            changed: false,
            exposure,
            keys: None,
        }));
    }
    let (keys, deployment) = apply_objects(
        tenant,
        state,
        ctx,
        Materials {
            id,
            store,
            open,
            inputs,
            born,
            started,
        },
    )
    .await?;
    findings.applied = true;
    findings.deployment = deployment.or_else(|| self::deployment(tenant, ctx));
    findings.holds(Aspect::ControlPlaneApplied, "Applied", applied);
    Ok(Some(Applied {
        changed: true,
        exposure,
        keys: Some(keys),
    }))
}

/// Whether the tenant's keys were once recorded as made: from then on a missing one is lost.
#[must_use]
pub fn is_born(object: &TenantControlPlane, state: &TenantState) -> bool {
    let says = |status: &TenantControlPlaneStatus| !status.certificates.ca.secret_name.is_empty();
    object.status.as_ref().is_some_and(says) || lock(&state.written).as_ref().is_some_and(says)
}

/// The recorded identity, or a new one that is recorded before anything else happens.
async fn identify(
    object: &TenantControlPlane,
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
    store: &str,
    findings: &mut Findings,
) -> Result<(StorageId, bool), Error> {
    let known = lock(&state.storage_id).clone();
    let mut minted = false;
    let id = if let Some(id) = known {
        id
    } else {
        let secret = Names::of(tenant).datastore_config;
        if let Some(id) = identity::recorded(object, &ctx.client, &secret).await? {
            id
        } else {
            minted = true;
            state.mint()?
        }
    };
    let storage = identity::storage_status(&id, store, &tenant.name);
    if lock(&state.storage_id).is_none() {
        identity::record(object, &ctx.client, &storage).await?;
        *lock(&state.storage_id) = Some(id.clone());
        ctx.wake_data_store_soon(store);
    }
    // Not before: an identity that could not be recorded under the finalizer must not get into status.
    findings.storage = Some(storage);
    Ok((id, minted))
}

/// Makes sure of the tenant's place in the pool: once per life of this process, and again after its API
/// server or the pool was away.
async fn claim(
    object: &TenantControlPlane,
    id: &StorageId,
    open: &OpenPool,
    state: &TenantState,
) -> Result<(), Error> {
    if open.problem.is_some() {
        state.set_claimed(false);
        return Ok(());
    }
    if state.is_claimed() {
        return Ok(());
    }
    open.pool.claim(id, &owner(object)).await?;
    state.set_claimed(true);
    Ok(())
}

/// Who the owner record names.
#[must_use]
pub fn owner(object: &TenantControlPlane) -> Owner {
    Owner {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        management_cluster: None,
    }
}

async fn apply_service(
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
) -> Result<Service, Error> {
    let desired = Desired::of(&control_plane::service(tenant))?;
    let outcomes = ctx
        .writer
        .apply_all(vec![desired], &state.ledger, 1)
        .await?;
    if let Some(object) = outcomes.into_iter().find_map(|outcome| outcome.object) {
        return Ok(serde_json::from_value(serde_json::to_value(object)?)?);
    }
    let reference = ObjectRef::new(&tenant.name).within(&tenant.namespace);
    if let Some(service) = ctx.stores.services.get(&reference) {
        return Ok(service.as_ref().clone());
    }
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    services
        .get(&tenant.name)
        .await
        .map_err(|error| Error::ReadService(Box::new(error)))
}

fn deployment(tenant: &Tenant, ctx: &Context) -> Option<Deployment> {
    let reference = ObjectRef::new(&tenant.name).within(&tenant.namespace);
    ctx.stores
        .deployments
        .get(&reference)
        .map(|deployment| deployment.as_ref().clone())
}

struct Materials {
    id: StorageId,
    store: String,
    open: Arc<OpenPool>,
    inputs: Inputs,
    born: bool,
    started: Instant,
}

async fn apply_objects(
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
    materials: Materials,
) -> Result<(Keys, Option<Deployment>), Error> {
    let Materials {
        id,
        store,
        open,
        inputs,
        born,
        started,
    } = materials;
    let disturbances = state.disturbances();
    let existing = if born {
        read_secrets(tenant, ctx).await?
    } else {
        read_keys(tenant, ctx).await?
    };
    let now = OffsetDateTime::now_utc();
    let keys = control_plane::keys(tenant, &existing, born, now)?;
    let leaves = control_plane::leaves(tenant, &keys, &inputs.exposure, &existing, now)?;
    let (client, client_renew_at) = storage_client(tenant, &id, &open.authority, &existing, now)?;
    let storage = Storage {
        id,
        data_store: store,
        endpoints: open.credentials.endpoints.clone(),
        certificate_authority: open.credentials.authority_certificate.clone(),
        client,
        peers: open.peers.clone(),
    };
    let objects = control_plane::build(&control_plane::Inputs {
        tenant,
        keys: &keys,
        leaves: &leaves,
        exposure: &inputs.exposure,
        storage: &storage,
        management_networks: &inputs.management_networks,
    });
    ctx.metrics.step(Step::Prepare, started.elapsed());

    let mut first = Vec::new();
    for secret in &objects.secrets {
        first.push(Desired::of(secret)?);
    }
    for config_map in &objects.config_maps {
        first.push(Desired::of(config_map)?);
    }
    first.push(Desired::of(&objects.network_policy)?);
    if let Some(budget) = &objects.pod_disruption_budget {
        first.push(Desired::of(budget)?);
    }
    ctx.writer
        .apply_all(first, &state.ledger, CONCURRENCY)
        .await?;
    // Last, so that no kubelet finds a Secret missing and no API server its etcd user.
    let deployment = Desired::of(&objects.deployment)?;
    let outcomes = ctx
        .writer
        .apply_all(vec![deployment], &state.ledger, 1)
        .await?;
    let answer = outcomes.into_iter().find_map(|outcome| outcome.object);
    let deployment = answer.map(serde_json::to_value).transpose()?;
    let deployment = deployment.map(serde_json::from_value).transpose()?;
    if !born {
        ctx.metrics.step(Step::Birth, state.first_seen.elapsed());
    }
    if objects.pod_disruption_budget.is_none() && born {
        // Fewer than two replicas: whatever budget there was goes.
        let kind = [ApiResource::erase::<PodDisruptionBudget>(&())];
        let ours = format!("{TENANT}={},{MANAGED_BY}={MANAGED_BY_VALUE}", tenant.name);
        for key in ctx
            .writer
            .delete_labelled(&kind, Some(&tenant.namespace), &ours)
            .await?
        {
            state.ledger.forget(&key);
        }
    }
    if mounted_changed(&existing, &objects.secrets) {
        refresh_pods(tenant, state, ctx).await;
    }
    let renew_at = leaves.renew_at.min(client_renew_at);
    state.settle(inputs, renew_at, disturbances);
    Ok((keys, deployment))
}
