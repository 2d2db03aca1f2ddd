//! When control-plane pods are replaced because of us, not because of the tenant's spec: a new version of the operator, or
//! another configuration of it, changes the template of every tenant's pods. They are rolled out one tenant at a time, the
//! next one once the one before is ready again, so that a version that does harm does it to one.
//!
//! What a person changes in a spec is never held up; nor is a tenant that is not ready, which has nothing to lose.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Mutex;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_kube::Desired;

use super::apply::{Pass, cached_deployment};
use super::error::Error;
use super::state::{Deployed, TenantState, lock};
use super::status::urgency::ready;
use super::status::{Check, Findings};
use crate::context::Context;
use crate::watches::tenant_of;

/// On a Deployment: digest of the pod template that was applied. The live one cannot be compared: the API server has
/// filled in defaults.
const TEMPLATE: &str = "stoker.dev/template";
/// On a Deployment: digest of the template that was rolled out in a turn. A process that begins learns from it whose turn
/// it was.
const TURN: &str = "stoker.dev/rollout-turn";

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
    /// Whether the spec is one that was already served: what differs then is not a person's doing.
    pub same_spec: bool,
    /// Whether the tenant is ready.
    pub ready: bool,
}

/// Whether applying the template needs a turn: it would replace the pods of a tenant that serves, and nobody has asked
/// for it.
#[must_use]
pub fn needs_turn(facts: &Facts<'_>) -> bool {
    let Some(live) = facts.live else {
        return false;
    };
    let same = annotation(live, TEMPLATE) == Some(facts.template);
    !same && facts.same_spec && facts.ready
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

/// Whether the Deployment's template was rolled out in a turn that has not ended.
#[must_use]
pub fn is_rolling(live: &Deployment) -> bool {
    let turn = annotation(live, TURN);
    turn.is_some() && turn == annotation(live, TEMPLATE) && !is_complete(live, 0)
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
    let mut text = String::new();
    for byte in &Desired::of(&alone)?.digest()[..8] {
        // Into a text nothing fails.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
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
    /// One, but for those that a process finds when it begins.
    rolling: Vec<TenantRef>,
    waiting: VecDeque<TenantRef>,
}

impl Rollouts {
    /// Takes over what a process before this one had begun.
    pub fn resume(&self, rolling: impl IntoIterator<Item = TenantRef>) {
        lock(&self.queue).rolling.extend(rolling);
    }

    /// Whether `tenant` may be rolled out now; else it is in the queue, and woken when it may.
    pub fn ask(&self, tenant: &TenantRef) -> Turn {
        let mut queue = lock(&self.queue);
        if queue.rolling.is_empty() {
            queue.rolling.push(tenant.clone());
        }
        if queue.rolling.contains(tenant) {
            queue.waiting.retain(|waiting| waiting != tenant);
            return Turn::Rolling;
        }
        if !queue.waiting.contains(tenant) {
            queue.waiting.push_back(tenant.clone());
        }
        Turn::Waiting
    }

    /// Whether it is `tenant`'s turn.
    pub fn is_rolling(&self, tenant: &TenantRef) -> bool {
        lock(&self.queue).rolling.contains(tenant)
    }

    /// `tenant` needs no turn, or none any more. Returns who is to be woken.
    pub fn leave(&self, tenant: &TenantRef) -> Option<TenantRef> {
        let mut queue = lock(&self.queue);
        if queue.rolling.is_empty() && queue.waiting.is_empty() {
            return None;
        }
        queue.rolling.retain(|rolling| rolling != tenant);
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
    /// Applies the Deployment, unless its turn has not come.
    pub(super) async fn roll_out(&self, wanted: Deployment) -> Result<Rolled, Error> {
        let template = template(&wanted)?;
        let live = cached_deployment(self.tenant, self.ctx);
        let facts = Facts {
            live: live.as_ref(),
            template: &template,
            same_spec: is_same_spec(self.object, self.state),
            ready: is_ready(self.object, self.state),
        };
        let reference = ObjectRef::from_obj(self.object);
        let turn = needs_turn(&facts).then(|| self.ctx.rollouts.ask(&reference));
        if turn == Some(Turn::Waiting) {
            tracing::info!("the pods wait for their turn to be replaced");
            return Ok(Rolled {
                deployment: None,
                turn,
            });
        }
        let in_turn = turn.is_some() || had_turn(live.as_ref(), &template);
        let desired = Desired::of(&stamped(wanted, &template, in_turn))?.answered_whole();
        let (writer, ledger) = (&self.ctx.writer, &self.state.ledger);
        let outcomes = writer.apply_all(vec![desired], ledger, 1).await?;
        let answer = outcomes.into_iter().find_map(|outcome| outcome.object);
        let answer = answer.map(serde_json::to_value).transpose()?;
        let deployment: Option<Deployment> = answer.map(serde_json::from_value).transpose()?;
        let answered = deployment.as_ref().or(live.as_ref());
        *lock(&self.state.deployed) = Some(Deployed {
            of: self.tenant.generation,
            generation: answered
                .and_then(|deployment| deployment.metadata.generation)
                .unwrap_or_default(),
        });
        if turn.is_some() && deployment.is_some() {
            tracing::info!("it is the tenant's turn to have its pods replaced");
        }
        Ok(Rolled { deployment, turn })
    }
}

/// Whether the tenant was ready when its status was last written.
fn is_ready(object: &TenantControlPlane, state: &TenantState) -> bool {
    let written = lock(&state.written);
    let status = written.as_ref().or(object.status.as_ref());
    let ready = status.and_then(ready);
    ready.is_some_and(|ready| ready.status == "True")
}

/// Whether the spec is one that this process has applied, or that a process before it has seen.
fn is_same_spec(object: &TenantControlPlane, state: &TenantState) -> bool {
    let generation = object.metadata.generation.unwrap_or_default();
    let status = object.status.as_ref();
    let seen = status.map(|status| status.observed_generation);
    let deployed = *lock(&state.deployed);
    deployed.map(|deployed| deployed.of).or(seen) == Some(generation)
}

/// After a pass: who has had its turn, or needs none, leaves the queue. One that is being rolled out keeps its turn until
/// all of its new pods are ready and it is.
pub(super) fn end_turn(
    reference: &TenantRef,
    state: &TenantState,
    findings: &mut Findings,
    ctx: &Context,
) {
    if findings.rollout == Some(Turn::Waiting) {
        return;
    }
    let asleep = |check: &Check| check.reason == "Sleeping";
    let applied = lock(&state.deployed).map_or(0, |deployed| deployed.generation);
    let deployment = findings.deployment.as_ref();
    let ended = findings.first_failure().is_none_or(asleep)
        && deployment.is_some_and(|live| is_complete(live, applied));
    if ctx.rollouts.is_rolling(reference) && !ended {
        findings.rollout = Some(Turn::Rolling);
        return;
    }
    findings.rollout = None;
    leave(reference, ctx);
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
        .collect();
    if !tenants.is_empty() {
        tracing::info!(?tenants, "rollouts that had begun");
    }
    ctx.rollouts.resume(tenants);
}

#[cfg(test)]
mod tests;
