//! When control-plane pods are replaced because of us, not because of the tenant's spec: a new version of the operator, or
//! another configuration of it, changes the template of every tenant's pods. They are rolled out one tenant at a time, the
//! next one once the one before serves again, so that a version that does harm does it to one.
//!
//! What a person changes in a spec is never held up; nor is a birth. A tenant whose pods do not serve takes its turn as the
//! others do, for a blip of the pool may be all that is wrong with it, and with the whole fleet; but it holds the others up
//! only for [`TURN_OF_ONE_THAT_IS_DOWN`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::ApiResource;
use kube::runtime::reflector::ObjectRef;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_kube::{Desired, Fingerprint, conditions};

use super::apply::{Pass, cached_deployment};
use super::error::Error;
use super::state::{Deployed, TenantState, lock};
use super::status::{Aspect, Findings};
use crate::context::Context;
use crate::watches::lean::read;
use crate::watches::tenant_of;

/// On a Deployment: digest of the pod template that was applied. The live one cannot be compared: the API server has
/// filled in defaults.
const TEMPLATE: &str = "stoker.dev/template";
/// On a Deployment: digest of the template that was rolled out in a turn. A process that begins learns from it whose turn
/// it was.
const TURN: &str = "stoker.dev/rollout-turn";
/// How long a tenant whose pods did not serve when its turn came keeps it: nobody knows whether it ever comes back.
const TURN_OF_ONE_THAT_IS_DOWN: Duration = Duration::from_secs(30);

type TenantRef = ObjectRef<TenantControlPlane>;

/// Where a tenant is in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Others are rolled out before it.
    Waiting,
    /// Its pods are being replaced.
    Rolling,
}

/// What speaks for and against replacing a tenant's pods now.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The Deployment as it is.
    pub live: Option<&'a Deployment>,
    /// Digest of the template that is wanted.
    pub template: &'a str,
    /// Whether the spec is one that was applied before: what differs then is not a person's doing.
    pub same_spec: bool,
    /// Whether it has ever served.
    pub has_served: bool,
    /// Whether pods are wanted at all.
    pub is_awake: bool,
}

/// Whether applying the template needs a turn: it would replace the pods of a tenant that served, and nobody has asked
/// for it.
#[must_use]
pub fn needs_turn(facts: &Facts<'_>) -> bool {
    let Some(live) = facts.live else {
        return false;
    };
    let same = annotation(live, TEMPLATE) == Some(facts.template);
    !same && facts.same_spec && facts.is_awake && !is_asleep(live) && facts.has_served
}

/// Whether no pods are wanted.
fn is_asleep(live: &Deployment) -> bool {
    live.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
}

/// Whether a pod serves, as far as the Deployment's counters tell.
fn serves(live: &Deployment) -> bool {
    let status = live.status.as_ref();
    status.and_then(|status| status.ready_replicas) > Some(0)
}

/// Whether all pods are of the template last applied, and ready. `applied` is the generation that the API server
/// answered with: a cache may not know it yet.
#[must_use]
pub fn is_complete(live: &Deployment, applied: i64) -> bool {
    let generation = live.metadata.generation.unwrap_or_default();
    let Some(status) = &live.status else {
        return false;
    };
    let of = |count: Option<i32>| count.unwrap_or_default();
    generation >= applied
        && status.observed_generation.unwrap_or_default() >= generation
        && of(status.updated_replicas) == of(status.replicas)
        && of(status.ready_replicas) == of(status.replicas)
}

/// Whether the Deployment's template was rolled out in a turn that has not ended. That pods are not ready does not say
/// so, for they may have been since.
#[must_use]
pub fn is_rolling(live: &Deployment) -> bool {
    let turn = annotation(live, TURN);
    turn.is_some() && turn == annotation(live, TEMPLATE) && !was_completed(live)
}

/// Whether the Deployment controller has once seen all pods of the latest template available.
fn was_completed(live: &Deployment) -> bool {
    let Some(status) = &live.status else {
        return false;
    };
    let progressing = |found: &&DeploymentCondition| found.type_ == "Progressing";
    let found = status.conditions.iter().flatten().find(progressing);
    let reason = found.and_then(|found| found.reason.as_deref());
    status.observed_generation >= live.metadata.generation
        && reason == Some("NewReplicaSetAvailable")
}

/// Whether the template last applied has, or had, a turn.
#[must_use]
pub fn had_turn(live: Option<&Deployment>, template: &str) -> bool {
    live.is_some_and(|live| annotation(live, TURN) == Some(template))
}

fn annotation<'a>(live: &'a Deployment, name: &str) -> Option<&'a str> {
    live.annotations().get(name).map(String::as_str)
}

/// Digest of the pod template.
///
/// # Errors
/// It does not turn into JSON.
pub fn template(deployment: &Deployment) -> Result<String, Error> {
    let spec = deployment.spec.as_ref();
    let alone = Deployment {
        metadata: ObjectMeta {
            name: Some("template".to_owned()),
            ..ObjectMeta::default()
        },
        spec: spec.map(|spec| DeploymentSpec {
            template: spec.template.clone(),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    // With sorted keys: Deployments remember this digest.
    let kind = ApiResource::erase::<Deployment>(&());
    let digest = *Desired::of_kind(&kind, &alone)?.digest();
    Ok(hex::encode(&digest[..8]))
}

/// The Deployment with what a later pass needs to know of its template.
#[must_use]
pub fn stamped(mut deployment: Deployment, template: &str, turn: bool) -> Deployment {
    let annotations = deployment
        .metadata
        .annotations
        .get_or_insert_with(BTreeMap::new);
    annotations.insert(TEMPLATE.to_owned(), template.to_owned());
    if turn {
        annotations.insert(TURN.to_owned(), template.to_owned());
    }
    deployment
}

/// Who is being rolled out because of us, and who waits for that. In memory: what must outlive the process is on the
/// Deployments.
#[derive(Default)]
pub struct Rollouts {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// One, but for those that a process finds when it begins. With when its turn ends at the latest, if it must.
    rolling: Vec<(TenantRef, Option<Instant>)>,
    waiting: VecDeque<TenantRef>,
}

impl Rollouts {
    /// Takes over what a process before this one had begun.
    pub fn resume(&self, rolling: impl IntoIterator<Item = TenantRef>) {
        let rolling = rolling.into_iter().map(|tenant| (tenant, None));
        lock(&self.queue).rolling.extend(rolling);
    }

    /// Whether `tenant` may be rolled out now; else it is in the queue, and woken when it may. A turn that is given
    /// lasts until the tenant [leaves](Self::leave), or should end `at_the_latest`.
    pub fn ask(&self, tenant: &TenantRef, at_the_latest: Option<Instant>) -> Turn {
        let mut queue = lock(&self.queue);
        if queue.rolling.is_empty() {
            queue.rolling.push((tenant.clone(), at_the_latest));
        }
        if queue.rolling.iter().any(|(rolling, _)| rolling == tenant) {
            queue.waiting.retain(|waiting| waiting != tenant);
            return Turn::Rolling;
        }
        if !queue.waiting.contains(tenant) {
            queue.waiting.push_back(tenant.clone());
        }
        Turn::Waiting
    }

    /// If it is `tenant`'s turn, when that ends at the latest.
    pub fn turn_of(&self, tenant: &TenantRef) -> Option<Option<Instant>> {
        let queue = lock(&self.queue);
        let mut rolling = queue.rolling.iter();
        let (_, ends) = rolling.find(|(rolling, _)| rolling == tenant)?;
        Some(*ends)
    }

    /// `tenant` needs no turn, or none any more. Returns who is to be woken.
    pub fn leave(&self, tenant: &TenantRef) -> Option<TenantRef> {
        let mut queue = lock(&self.queue);
        if queue.rolling.is_empty() && queue.waiting.is_empty() {
            return None;
        }
        queue.rolling.retain(|(rolling, _)| rolling != tenant);
        queue.waiting.retain(|waiting| waiting != tenant);
        let is_free = queue.rolling.is_empty();
        queue.waiting.front().filter(|_| is_free).cloned()
    }
}

/// What came of the Deployment in a pass.
#[derive(Default)]
pub(super) struct Rolled {
    /// As the API server answered.
    pub(super) deployment: Option<Deployment>,
    /// Where the tenant is in the queue, if it must be in it.
    pub(super) turn: Option<Turn>,
}

impl Pass<'_> {
    /// Applies the Deployment, unless its turn has not come. One that differs by what a person has `asked` for needs none.
    pub(super) async fn roll_out(&self, wanted: Deployment, asked: bool) -> Result<Rolled, Error> {
        let template = template(&wanted)?;
        let live = cached_deployment(self.tenant, self.ctx);
        let facts = Facts {
            live: live.as_ref(),
            template: &template,
            same_spec: !asked && is_same_spec(self.object, self.state),
            has_served: has_served(self.object, self.state),
            is_awake: self.tenant.replicas > 0,
        };
        let reference = ObjectRef::from_obj(self.object);
        let is_down = live.as_ref().is_some_and(|live| !serves(live));
        let ends = is_down.then(|| Instant::now() + TURN_OF_ONE_THAT_IS_DOWN);
        let turn = needs_turn(&facts).then(|| self.ctx.rollouts.ask(&reference, ends));
        if turn == Some(Turn::Waiting) {
            tracing::info!("the pods wait for their turn to be replaced");
            return Ok(Rolled {
                deployment: None,
                turn,
            });
        }
        // One that was down is not waited for by a process that begins.
        let waited_for = turn.is_some() && self.ctx.rollouts.turn_of(&reference) == Some(None);
        let in_turn = waited_for || had_turn(live.as_ref(), &template);
        let stamped = stamped(wanted, &template, in_turn);
        let desired = Desired::of(&stamped)?.answered_whole();
        let (writer, ledger) = (&self.ctx.writer, &self.state.ledger);
        let outcomes = writer.apply_all(vec![desired], ledger, 1).await?;
        let answer = outcomes.into_iter().find_map(|outcome| outcome.object);
        let deployment: Option<Deployment> = answer.as_deref().map(read).transpose()?;
        let mut deployed = lock(&self.state.deployed);
        let (of, answered) = (self.tenant.generation, deployment.as_ref());
        *deployed = Some(follow(deployed.take(), of, answered, live.as_ref()));
        drop(deployed);
        if turn.is_some() && deployment.is_some() {
            tracing::info!("it is the tenant's turn to have its pods replaced");
        }
        Ok(Rolled { deployment, turn })
    }
}

/// The Deployment as it is `cached`, unless that is older than what is `known`, which may be what the API server has
/// answered.
#[must_use]
pub fn newer(known: Deployment, cached: Option<Deployment>) -> Deployment {
    let state = |of: &Deployment| Fingerprint::of(&of.metadata);
    cached
        .filter(|cached| state(&known).not_after(&state(cached)))
        .unwrap_or(known)
}

/// What is deployed for generation `of` of the tenant, where the API server has `answered` this or, if nothing was sent,
/// the cache has that. The cache may lag behind what was answered `before`, of a Deployment that is gone by now too.
fn follow(
    before: Option<Deployed>,
    of: i64,
    answered: Option<&Deployment>,
    cached: Option<&Deployment>,
) -> Deployed {
    let said = answered.or(cached).map(|said| Deployed {
        of,
        generation: said.metadata.generation.unwrap_or_default(),
        uid: said.metadata.uid.clone(),
    });
    match (before, said) {
        (Some(before), Some(said)) if before.uid == said.uid => Deployed {
            generation: said.generation.max(before.generation),
            ..said
        },
        (Some(before), _) if answered.is_none() => Deployed { of, ..before },
        (_, said) => said.unwrap_or(Deployed {
            of,
            generation: 0,
            uid: None,
        }),
    }
}

/// Whether the tenant has ever been ready.
fn has_served(object: &TenantControlPlane, state: &TenantState) -> bool {
    let written = lock(&state.written);
    let status = written.as_ref().or(object.status.as_ref());
    status.is_some_and(|status| status.kubernetes_resources.version.version.is_some())
}

/// Whether the spec is the one that this process, or the one before it, has applied. Not kept on the Deployment, whose
/// annotations count for its generation. Where it is not known, nobody has changed the spec.
fn is_same_spec(object: &TenantControlPlane, state: &TenantState) -> bool {
    let generation = object.metadata.generation;
    if let Some(deployed) = &*lock(&state.deployed) {
        return Some(deployed.of) == generation;
    }
    let status = object.status.as_ref();
    let applied = Aspect::ControlPlaneApplied.condition();
    let found = status.and_then(|status| conditions::find(&status.conditions, applied));
    found.is_none_or(|found| found.status != "True" || found.observed_generation == generation)
}

/// After a pass: who has had its turn, or needs none, leaves the queue. One that is being rolled out keeps its turn until
/// all of its new pods are ready and an API server was seen to answer; what is wrong with it otherwise holds nobody up.
/// Returns when the turn ends, if it must.
pub(super) fn end_turn(
    reference: &TenantRef,
    state: &TenantState,
    findings: &mut Findings,
    ctx: &Context,
) -> Option<Duration> {
    if findings.rollout == Some(Turn::Waiting) {
        return None;
    }
    if let Some(ends) = ctx.rollouts.turn_of(reference) {
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        if !has_had_turn(state, findings) && left != Some(Duration::ZERO) {
            findings.rollout = Some(Turn::Rolling);
            return left;
        }
    }
    findings.rollout = None;
    leave(reference, ctx);
    None
}

fn has_had_turn(state: &TenantState, findings: &Findings) -> bool {
    let applied = state.deployed_generation().unwrap_or_default();
    let Some(live) = &findings.deployment else {
        return false;
    };
    is_complete(live, applied)
        && (is_asleep(live) || findings.has_found(Aspect::ApiServerAvailable))
}

/// After a pass that was cut off: who waits leaves the queue, for nobody knows whether its next pass comes as far as to
/// ask again; who is being rolled out keeps its turn, for a version that does harm does it to one. Returns that.
pub(super) fn stand_aside(reference: &TenantRef, ctx: &Context) -> Option<Turn> {
    let rolling = ctx.rollouts.turn_of(reference).map(|_| Turn::Rolling);
    if rolling.is_none() {
        leave(reference, ctx);
    }
    rolling
}

/// The tenant leaves the queue; the next one is woken when it may go.
pub(crate) fn leave(tenant: &TenantRef, ctx: &Context) {
    if let Some(next) = ctx.rollouts.leave(tenant) {
        ctx.wake(next);
    }
}

/// Takes over what a process before this one had begun.
pub(crate) fn resume(ctx: &Context) {
    let deployments = ctx.stores.deployments.state();
    let rolling = deployments.iter().filter(|live| is_rolling(live));
    let tenants: Vec<_> = rolling
        .filter_map(|live| tenant_of(&live.metadata))
        // One that is gone would never leave.
        .filter(|tenant| ctx.stores.tenants.get(tenant).is_some())
        .collect();
    if !tenants.is_empty() {
        tracing::info!(?tenants, "rollouts that had begun");
    }
    ctx.rollouts.resume(tenants);
}

#[cfg(test)]
mod tests;
