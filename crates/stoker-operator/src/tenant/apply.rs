//! The management side of a pass: the place in the pool and the Service, then what stands around the pods and what
//! they mount, then the Deployment. What fails keeps only what depends on it from being brought up to date.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::FutureExt;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ObjectReference, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ApiResource;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use stoker_api::StorageId;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{self as control_plane, Exposure, Keys, Names, RESTART_CHECKSUM};
use stoker_etcd::Pool;
use stoker_kube::{Desired, Error as KubeError, ObjectKey, Outcome};
use time::OffsetDateTime;

use super::build::Wanted;
use super::claim::{self, Identity, claim_place, identify, is_born, pool_turn};
use super::error::Error;
use super::identity;
use super::inputs::inputs;
use super::kubelets;
use super::manifest;
use super::rollout::{self, Rolled};
use super::secrets::{NamesThere, TenantSecrets, refresh_pods, release};
use super::state::{Inputs, TenantState, lock};
use super::status::{Aspect, Check, Findings};
use super::store::{self, Place};
use super::turn::Turn;
use crate::context::Context;
use crate::metrics::Step;
use crate::watches::lean::read;

/// Objects applied at the same time for one tenant.
const CONCURRENCY: usize = 16;

/// The management side after a pass.
#[derive(Default)]
pub(super) struct Applied {
    /// Where the API server is reached; `None` while nothing of the tenant is there yet.
    pub(super) exposure: Option<Exposure>,
    /// The tenant's keys, when this pass had to read them.
    pub(super) keys: Option<Keys>,
    /// The pool, when it has no problem, and the identity in it.
    pub(super) stored: Option<(Pool, StorageId)>,
    /// What went wrong first. It is among the findings too.
    pub(super) failure: Option<Error>,
}

impl Applied {
    fn fails<T>(&mut self, findings: &mut Findings, aspect: Aspect, error: Error) -> Option<T> {
        findings.error(aspect, &error);
        self.failure.get_or_insert(error);
        None
    }
}

/// Brings the management cluster and the pool to what the tenant wants.
pub(super) async fn apply(
    object: &TenantControlPlane,
    tenant: &Tenant,
    state: &Arc<TenantState>,
    ctx: &Context,
    findings: &mut Findings,
) -> Applied {
    let mut turn = Turn::of(&ctx.work, &ctx.metrics).await;
    let started = Instant::now();
    let mut applied = Applied::default();
    let lives = is_born(object, state);
    if let Some(check) = unknown_networks(lives, ctx) {
        findings.found(Aspect::ControlPlaneApplied, check);
        return applied;
    }
    let mut ground = match store::place(object, tenant, lives, ctx) {
        Ok(place) => {
            let identified = identify(object, tenant, &place, state, ctx, findings);
            match turn.awaiting(identified.boxed()).await {
                Ok(identity) => Some((place, identity)),
                Err(error) => applied.fails(findings, Aspect::DataStoreReady, error),
            }
        }
        Err(check) => {
            findings.found(Aspect::DataStoreReady, check);
            None
        }
    };
    if ground.is_none() && !lives {
        return applied;
    }
    let Ok(stable_name) = stable_name(object, ground.as_ref(), state, ctx) else {
        return applied;
    };
    let pool_turn = turn.queueing(pool_turn(ground.as_ref(), state)).await;
    let both = async {
        let claimed = claim_place(object, ground.as_ref(), state, ctx);
        tokio::join!(claimed, apply_service(tenant, state, ctx))
    };
    let (claimed, service) = turn.awaiting(both.boxed()).await;
    drop(pool_turn);
    match claimed {
        Ok(Some(check)) => findings.found(Aspect::DataStoreReady, check),
        Ok(None) => {}
        Err(error) => {
            if let Some((place, _)) = &mut ground {
                place.fails(&error);
            }
            applied.fails::<()>(findings, Aspect::DataStoreReady, error);
            if !lives {
                return applied;
            }
        }
    }
    let service = match service {
        Ok(service) => Some(service),
        Err(error) => {
            applied.fails::<()>(findings, Aspect::ControlPlaneApplied, error);
            cached_service(tenant, ctx)
        }
    };
    let exposure = service
        .map(|service| control_plane::exposure(tenant, stable_name.as_deref(), Some(&service)));
    findings.exposure.clone_from(&exposure);
    applied.exposure.clone_from(&exposure);
    if let (Some(exposure), Some((place, Identity { id, born, there }))) = (exposure, ground) {
        let pass = Pass {
            object,
            reference: object.object_ref(&()),
            tenant,
            state,
            ctx,
            place: &place,
            id: &id,
            adopts: claim::adopts(object, &id, state),
            inputs: inputs(tenant, exposure, &place, ctx),
            born,
            there,
            kubelets_verified: kubelets::verified(object, tenant, state),
            started,
        };
        let sound = place.open.problem.is_none();
        applied.stored = sound.then(|| (place.open.pool.clone(), id.clone()));
        pass.bring_up(&mut turn, &mut applied, findings)
            .boxed()
            .await;
    }
    applied
}

/// The tenant's name under the operator's base domain, if it has one.
///
/// # Errors
/// Nobody knows its identity now, from which the name follows: its store is away and its status lost.
fn stable_name(
    object: &TenantControlPlane,
    ground: Option<&(Place, Identity)>,
    state: &TenantState,
    ctx: &Context,
) -> Result<Option<String>, ()> {
    let Some(domain) = &ctx.args.base_domain else {
        return Ok(None);
    };
    let id = match ground {
        Some((_, identity)) => Some(identity.id.clone()),
        None => identity::known(object, state),
    };
    id.map(|id| Some(domain.name_of(&id))).ok_or(())
}

/// A new tenant is not let in while its pods could reach networks of ours that nobody has named.
fn unknown_networks(lives: bool, ctx: &Context) -> Option<Check> {
    let networks = ctx.management_networks.borrow();
    let unnamed = networks.unnamed.as_ref().filter(|_| !lives)?;
    Some(Check::fails(
        "ManagementNetworksUnknown",
        format!(
            "control-plane pods could reach networks of the management cluster, because {unnamed}: start the operator with --management-cidrs"
        ),
    ))
}

async fn apply_service(
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
) -> Result<Service, Error> {
    let desired = Desired::of(&control_plane::service(tenant))?.answered_whole();
    let outcomes = ctx
        .writer
        .apply_all(vec![desired], &state.ledger, 1)
        .await?;
    if let Some(object) = outcomes.into_iter().find_map(|outcome| outcome.object) {
        return Ok(read(&object)?);
    }
    if let Some(service) = cached_service(tenant, ctx) {
        return Ok(service);
    }
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    services
        .get(&tenant.name)
        .await
        .map_err(|error| Error::ReadService(Box::new(error)))
}

fn cached_service(tenant: &Tenant, ctx: &Context) -> Option<Service> {
    let reference = ObjectRef::new(&tenant.name).within(&tenant.namespace);
    Some(ctx.stores.services.get(&reference)?.as_ref().clone())
}

/// What pods are to have read at their start.
fn restart_checksum(deployment: &Deployment) -> Option<String> {
    let template = &deployment.spec.as_ref()?.template;
    let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
    annotations.get(RESTART_CHECKSUM).cloned()
}

pub(super) fn cached_deployment(tenant: &Tenant, ctx: &Context) -> Option<Deployment> {
    let reference = ObjectRef::new(&tenant.name).within(&tenant.namespace);
    Some(ctx.stores.deployments.get(&reference)?.as_ref().clone())
}

/// What applying the objects needs.
pub(super) struct Pass<'a> {
    pub(super) object: &'a TenantControlPlane,
    pub(super) reference: ObjectReference,
    pub(super) tenant: &'a Tenant,
    pub(super) state: &'a TenantState,
    pub(super) ctx: &'a Context,
    pub(super) place: &'a Place,
    pub(super) id: &'a StorageId,
    /// Whether the identity is that of a deleted tenant, taken over in this pass.
    pub(super) adopts: bool,
    pub(super) inputs: Inputs,
    pub(super) born: bool,
    pub(super) there: NamesThere,
    /// Whether API servers verify the certificates that kubelets serve.
    pub(super) kubelets_verified: bool,
    pub(super) started: Instant,
}

impl Pass<'_> {
    /// Applies what is not known to be so already.
    async fn bring_up(&self, turn: &mut Turn<'_>, applied: &mut Applied, findings: &mut Findings) {
        findings.applied = self.born;
        // Told with what tells a tenant that has it from one from before there was such a thing.
        findings.kubelets_verified = self.born.then_some(self.kubelets_verified);
        findings.deployment = cached_deployment(self.tenant, self.ctx);
        if !self
            .state
            .is_settled(&self.inputs, OffsetDateTime::now_utc())
        {
            match self.apply_objects(turn).boxed().await {
                Ok((keys, rolled)) => {
                    let took = self.started.elapsed();
                    self.ctx.metrics.step(Step::Apply, took);
                    applied.keys = Some(keys);
                    findings.deployment = rolled.deployment.or(findings.deployment.take());
                    findings.rollout = rolled.turn;
                }
                Err(error) => {
                    applied.fails::<()>(findings, Aspect::ControlPlaneApplied, error);
                    return;
                }
            }
        }
        if let Err(error) = self.keep_manifest(turn).await {
            applied.fails::<()>(findings, Aspect::DataStoreReady, error);
        }
        findings.applied = true;
        findings.kubelets_verified = Some(self.kubelets_verified);
        let message = "every object of the control plane is applied";
        findings.holds(Aspect::ControlPlaneApplied, "Applied", message);
    }

    /// What people wrote is kept beside the data, once everything that follows from it is applied.
    async fn keep_manifest(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        if self.place.open.problem.is_some() {
            return Ok(());
        }
        let kept = manifest::keep(
            self.object,
            self.id,
            &self.place.name,
            &self.place.open.pool,
            self.state,
            self.ctx,
        );
        turn.awaiting(kept.boxed()).await
    }

    async fn apply_objects(&self, turn: &mut Turn<'_>) -> Result<(Keys, Rolled), Error> {
        let disturbances = self.state.disturbances();
        let (guarded, mounted) = tokio::join!(self.apply_guards(), self.apply_mounted(turn));
        let wanted = mounted?;
        guarded?;
        let dates = wanted.dates();
        // Last, so that no kubelet finds a Secret missing and no API server its etcd user.
        // Keys change step by step because a person wants it.
        let asked = wanted.replaces.is_some();
        let checksum = restart_checksum(&wanted.deployment);
        let rolled = self.roll_out(wanted.deployment, asked).boxed().await?;
        *lock(&self.state.restart_checksum) = checksum;
        if !self.born {
            let since = self.state.first_seen.elapsed();
            self.ctx.metrics.step(Step::Birth, since);
        }
        if self.state.unrefreshed.load(Ordering::Acquire) {
            let pods: Vec<_> = lock(&self.state.pods).names().map(str::to_owned).collect();
            refresh_pods(&self.tenant.namespace, &pods, self.ctx).await;
            self.state.unrefreshed.store(false, Ordering::Release);
        }
        *lock(&self.state.certificates) = Some(dates);
        lock(&self.state.encryption).applied(&wanted.tenant_keys.encryption, self.tenant);
        lock(&self.state.authority).applied(&wanted.tenant_keys, self.tenant);
        // With a pool that has a problem something may have been left out.
        if self.place.open.problem.is_none() && rolled.turn != Some(rollout::Turn::Waiting) {
            let inputs = self.inputs.clone();
            self.state.settle(inputs, wanted.renew_at, disturbances);
        }
        Ok((wanted.tenant_keys, rolled))
    }

    /// The keys first, each written once and copied to the escrow; then what was made with them.
    async fn apply_mounted(&self, turn: &mut Turn<'_>) -> Result<Wanted, Error> {
        for name in Names::of(self.tenant).irreplaceable() {
            let namespace = Some(self.tenant.namespace.as_str());
            let key = ObjectKey::of::<Secret>(namespace, name);
            self.state.ledger.expect(&key);
        }
        let mut existing =
            TenantSecrets::read(self.tenant, self.born, &self.there, self.ctx).await?;
        let mut wanted = self.build(&mut existing, turn).await?;
        self.ctx.metrics.step(Step::Prepare, self.started.elapsed());
        // Of a pass that ends before the pods are told, the next one does not see it any more.
        let unrefreshed = &self.state.unrefreshed;
        unrefreshed.fetch_or(wanted.changes_mounted, Ordering::AcqRel);
        let leaving = existing.leaving();
        let (leave, stay): (Vec<_>, Vec<_>) = wanted
            .keys
            .iter()
            .partition(|(key, _)| leaving.contains(&key.key().name()));
        let (writer, ledger) = (&self.ctx.writer, &self.state.ledger);
        let sent = stay
            .into_iter()
            .map(|(key, stored)| writer.write_once(key, stored.as_ref(), ledger));
        try_join_all(sent).await?;
        if !leave.is_empty() {
            // Looked at again: soon it is the only one.
            lock(&self.state.escrowed).clear();
        }
        self.keep_copy(&wanted, turn).await?;
        for (key, stored) in leave {
            let name = key.key().name();
            release(name, &self.tenant.namespace, &self.tenant.uid, self.ctx).await?;
            ledger.forget(key.key());
            writer.write_once(key, stored.as_ref(), ledger).await?;
        }
        let mounted = std::mem::take(&mut wanted.mounted);
        // After a start of this process everything is written once, and need not differ.
        let known = mounted.iter().map(Desired::key);
        let known: Vec<_> = known.filter(|key| ledger.knows(key)).cloned().collect();
        let written = writer.apply_all(mounted, ledger, CONCURRENCY).await;
        unrefreshed.fetch_or(written.is_err(), Ordering::AcqRel);
        let written = written?;
        let differs = |one: &Outcome| one.changed && known.contains(&one.key);
        unrefreshed.fetch_or(written.iter().any(differs), Ordering::AcqRel);
        self.tell_restored(&existing).await;
        Ok(wanted)
    }

    /// Nothing while an endpoint of the pool was never found since this process began: what is there was made when it
    /// was known, and must not lose it.
    async fn apply_guards(&self) -> Result<(), Error> {
        if self.place.open.peers.unresolved().is_some() {
            return Ok(());
        }
        let guards = control_plane::guards(
            self.tenant,
            &self.inputs.endpoints,
            &self.inputs.peers,
            &self.inputs.management_networks,
        );
        let mut wanted = vec![Desired::of(&guards.network_policy)?];
        if let Some(admission) = &guards.static_admission {
            wanted.push(Desired::of(admission)?);
        }
        if let Some(budget) = &guards.pod_disruption_budget {
            wanted.push(Desired::of(budget)?);
        }
        let (writer, ledger) = (&self.ctx.writer, &self.state.ledger);
        writer.apply_all(wanted, ledger, CONCURRENCY).await?;
        if guards.pod_disruption_budget.is_none() && self.born {
            self.remove_budget().await?;
        }
        Ok(())
    }

    /// Fewer than two replicas: whatever budget there was goes.
    async fn remove_budget(&self) -> Result<(), KubeError> {
        let kind = [ApiResource::erase::<PodDisruptionBudget>(&())];
        let name = &self.tenant.name;
        let ours = format!("{TENANT}={name},{MANAGED_BY}={MANAGED_BY_VALUE}");
        let namespace = Some(self.tenant.namespace.as_str());
        let removed = self.ctx.writer.delete_labelled(&kind, namespace, &ours);
        for key in removed.await? {
            self.state.ledger.forget(&key);
        }
        Ok(())
    }
}
