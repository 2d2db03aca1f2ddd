//! One pass over a tenant: dereference → validate → build → apply → status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use stoker_api::labels::PAUSED;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use time::OffsetDateTime;

use super::apply::{self, Applied};
use super::spec::served;
use super::state::{TenantState, lock};
use super::status::urgency::{PROGRESS, is_problem, is_urgent, ready};
use super::status::{Aspect, Check, Findings, status, stuck};
use super::{
    authority, delete, encryption, error::Error, hibernation, inside, rollout, routes, store, told,
    writes,
};
use crate::contained::{caught, contained};
use crate::context::Context;
use crate::data_store::reconcile::data_store_of;
use crate::metrics::{Controller, Outcome};

/// A pass takes seconds. One that takes this long hangs; it is cut off, which every step of it survives.
const LIMIT: Duration = Duration::from_mins(5);
/// To write that it was.
const SAYING: Duration = Duration::from_secs(20);

/// One pass, and the status that follows from it, whatever came of it.
///
/// # Errors
/// Something failed that is worth trying again soon; the condition says what.
pub async fn reconcile(
    object: Arc<TenantControlPlane>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::Tenant);
    let ended = tokio::time::timeout(LIMIT, caught(look(&object, &ctx).boxed())).await;
    let result = match ended {
        Ok(Ok(done)) => done,
        Ok(Err(panicked)) => Err(cut_off(&object, panicked.into(), &ctx).boxed().await),
        Err(_) => Err(cut_off(&object, Error::PassTimeout(LIMIT), &ctx)
            .boxed()
            .await),
    };
    if let Err(Error::Pool(error)) = &result
        && error.is_of_pool()
    {
        suspect_store(&object, (error.category(), error.to_string()), &ctx);
    }
    result
}

/// Asks nothing more of a pool that has failed a tenant until it was looked at: others need not wait for it too.
fn suspect_store(object: &TenantControlPlane, problem: (&'static str, String), ctx: &Context) {
    // Recorded before anything was asked of the pool, by a first pass too.
    let latest = ctx.stores.tenants.get(&ObjectRef::from_obj(object));
    let latest = latest.as_deref().unwrap_or(object);
    if let Some(store) = data_store_of(latest) {
        ctx.pools.suspect(store, problem);
        ctx.wake_data_store_soon(store);
    }
}

/// Says of a pass that was cut off, or panicked, that it was or did, and lets others go before it. Returns why it failed.
async fn cut_off(object: &Arc<TenantControlPlane>, error: Error, ctx: &Arc<Context>) -> Error {
    let told = tokio::time::timeout(SAYING, contained(tell(object, &error, ctx))).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!("the failure is not on the object");
    }
    error
}

async fn tell(
    object: &Arc<TenantControlPlane>,
    error: &Error,
    ctx: &Arc<Context>,
) -> Result<(), Error> {
    let reference = ObjectRef::from_obj(object.as_ref());
    let state = ctx
        .tenants
        .state_of(&reference, object.meta().uid.as_deref());
    let mut findings = Findings::default();
    findings.rollout = rollout::stand_aside(&reference, ctx);
    findings.error(Aspect::ControlPlaneApplied, error);
    write_status(object, None, &findings, &state, ctx).await?;
    Ok(())
}

async fn look(object: &Arc<TenantControlPlane>, ctx: &Arc<Context>) -> Result<Action, Error> {
    tracing::debug!("pass begins");
    let reference = ObjectRef::from_obj(object.as_ref());
    ctx.looks_at(&reference);
    let state = ctx
        .tenants
        .state_of(&reference, object.meta().uid.as_deref());
    if object.meta().deletion_timestamp.is_some() {
        return delete::delete(object, &state, ctx).await;
    }
    if object.annotations().contains_key(PAUSED) {
        tracing::debug!("paused");
        // Also one that is being rolled out: so a person lets the others go on.
        rollout::leave(&reference, ctx);
        return Ok(Action::await_change());
    }

    let mut findings = Findings::default();
    let wishes = state.wishes();
    let mut tenant = validate(object, ctx, &mut findings);
    let changes = match &mut tenant {
        Some(tenant) => {
            hibernation::decide(object, tenant, wishes.is_some(), &state, ctx, &mut findings)
                .boxed()
                .await
        }
        None => None,
    };
    let result = match &tenant {
        Some(tenant) => {
            pass(object, tenant, &state, ctx, &mut findings)
                .boxed()
                .await
        }
        None => Ok(()),
    };
    let unknown = |check: &Check| check.reason == store::UNKNOWN;
    if result.is_ok() && findings.first_failure().is_some_and(unknown) {
        // Nothing is known against what the status says: a restart of the operator makes no tenant unready.
        return Ok(Action::await_change());
    }
    if let Some(tenant) = &tenant {
        catch_up(tenant, &state, ctx, &mut findings);
    }
    let turn_ends = rollout::end_turn(&reference, &state, &mut findings, ctx);
    let held = write_status(object, tenant.as_ref(), &findings, &state, ctx).await?;
    hibernation::hear(object, wishes, &state, ctx).await?;
    if findings.again && held.is_none() {
        ctx.wake(reference.clone());
    }
    let waits = findings.first_failure().is_some();
    result?;
    ctx.tenant_failures.succeeded(&reference);
    ctx.metrics.finished(
        Controller::Tenant,
        if waits {
            Outcome::Waiting
        } else {
            Outcome::Done
        },
    );
    let known = lock(&state.written).clone();
    let status = known.as_ref().or(object.status.as_ref());
    let stuck = status.and_then(|status| stuck::due(status, Timestamp::now()));
    Ok(next_look(
        &state,
        held.into_iter().chain(turn_ends).min(),
        [stuck, changes],
    ))
}

/// The tenant, if its spec can be served.
fn validate(object: &TenantControlPlane, ctx: &Context, findings: &mut Findings) -> Option<Tenant> {
    match served(object, ctx.args.base_domain.as_ref()) {
        Ok(tenant) => {
            findings.holds(Aspect::Valid, "Accepted", "the spec can be served");
            Some(tenant)
        }
        Err((reason, wrong)) => {
            findings.fails(Aspect::Valid, reason, wrong);
            None
        }
    }
}

/// What is said of pods and Deployment is what is known when all is done: writing into a tenant may take as long as the
/// kubelet needs to find its pod ready.
fn catch_up(tenant: &Tenant, state: &TenantState, ctx: &Context, findings: &mut Findings) {
    if let Some(known) = findings.deployment.take() {
        let cached = apply::cached_deployment(tenant, ctx);
        findings.deployment = Some(rollout::newer(known, cached));
    }
    if findings.has_found(Aspect::ApiServerAvailable) {
        inside::say_unserved(state, findings);
    }
}

/// The next known deadline: a certificate that is due, a credential that ends, a name to resolve again, a status that
/// was `held` back this long or a turn that ends, the `times` from which the tenant is stuck, sleeps or wakes. Everything
/// else wakes the tenant by itself.
fn next_look(state: &TenantState, held: Option<Duration>, times: [Option<Timestamp>; 2]) -> Action {
    let now = OffsetDateTime::now_utc();
    // A second later it is so for certain.
    let times = times
        .into_iter()
        .flatten()
        .filter_map(|at| OffsetDateTime::from_unix_timestamp(at.as_second() + 1).ok());
    let deadlines = [state.renew_at(), *lock(&state.look_again)];
    let waits = deadlines.into_iter().flatten().chain(times).map(|next| {
        let wait = (next - now).max(time::Duration::SECOND);
        Duration::try_from(wait).unwrap_or(Duration::from_secs(1))
    });
    waits
        .chain(held)
        .min()
        .map_or_else(Action::await_change, Action::requeue)
}

/// Both sides of a pass. What fails on the management side does not keep what is there already from being kept
/// up inside the tenant.
async fn pass(
    object: &TenantControlPlane,
    tenant: &Tenant,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
    findings: &mut Findings,
) -> Result<(), Error> {
    state.look(OffsetDateTime::now_utc());
    let Applied {
        exposure,
        keys,
        stored,
        failure,
    } = apply::apply(object, tenant, state, ctx, findings)
        .boxed()
        .await;
    let (routed, configured) = match exposure {
        Some(exposure) => {
            let keys = keys.as_ref();
            let routed = routes::keep(object, tenant, &exposure, state, ctx, findings).await;
            let configured =
                inside::configure(object, tenant, &exposure, keys, state, ctx, findings).await;
            // What could not be applied no API server can follow.
            let is_applied = failure.is_none() && findings.applied && tenant.replicas > 0;
            writes::verify(object, tenant, keys, state, ctx, is_applied, findings)
                .boxed()
                .await;
            if failure.is_none() && findings.applied {
                let place = stored.as_ref();
                findings.encryption = encryption::keep(object, tenant, place, state, ctx)
                    .boxed()
                    .await;
                findings.authority =
                    authority::keep(object, tenant, place.is_some(), findings, state, ctx)
                        .boxed()
                        .await;
            }
            (routed, configured)
        }
        None => (Ok(()), Ok(())),
    };
    // The others are tried again with the first.
    failure.map_or(Ok(()), Err).and(configured).and(routed)
}

/// Writes the status, unless it only tells of progress and the last one is young: then the time to wait is returned.
async fn write_status(
    object: &TenantControlPlane,
    tenant: Option<&Tenant>,
    findings: &Findings,
    state: &TenantState,
    ctx: &Context,
) -> Result<Option<Duration>, Error> {
    let known = lock(&state.written)
        .clone()
        .or_else(|| object.status.clone());
    let old = known.clone().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let new = status(&old, tenant, generation, findings, Timestamp::now());
    if old == new {
        return Ok(None);
    }
    let age = lock(&state.written_at).map_or(Duration::MAX, |written| written.elapsed());
    if age < PROGRESS && !is_urgent(&old, &new) {
        return Ok(Some(PROGRESS.saturating_sub(age)));
    }
    // The cache may have followed meanwhile: its version saves a conflict and a read.
    let reference = ObjectRef::from_obj(object);
    let cached = ctx
        .stores
        .tenants
        .get(&reference)
        .filter(|cached| cached.uid() == object.uid());
    let latest = cached.as_deref().unwrap_or(object);
    let written = stoker_kube::write_status(&ctx.client, latest, known.as_ref(), &new).await?;
    *lock(&state.written) = Some(new.clone());
    if !written {
        return Ok(None);
    }
    *lock(&state.written_at) = Some(Instant::now());
    told::tell(object, &old, &new, ctx).await;
    let word = |status: &TenantControlPlaneStatus| status.kubernetes_resources.version.status;
    let (before, Some(condition)) = (ready(&old), ready(&new)) else {
        return Ok(None);
    };
    let problem = findings
        .first_failure()
        .is_some_and(|check| is_problem(check.reason));
    let is_news = before.is_none_or(|before| {
        before.status != condition.status
            || before.reason != condition.reason
            || (problem && before.message != condition.message)
    });
    if is_news {
        tracing::info!(state = ?word(&new), reason = %condition.reason, "tenant changed");
        let reference = object.object_ref(&());
        let (reason, message) = (&condition.reason, &condition.message);
        ctx.events
            .publish(&reference, problem, reason, "Reconcile", message)
            .await;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::watcher::Event;
    use serde_json::{from_value, json};

    use super::*;
    use crate::watches::tests::{operator, tenant_exists};

    #[tokio::test]
    async fn a_pod_that_becomes_ready_during_a_pass_is_ready_in_what_the_pass_says() {
        let (mut parts, _server) = operator(&[]);
        let reference = tenant_exists(&mut parts.watches.tenants);
        let object = parts.ctx.stores.tenants.get(&reference).unwrap();
        let tenant = Tenant::validate(&object).unwrap();
        let state = parts.ctx.tenants.state(&reference);
        let deployment = |version: &str, ready: i32| -> Deployment {
            from_value(json!({
                "metadata": { "name": "one", "namespace": "a", "uid": "d", "resourceVersion": version },
                "status": { "readyReplicas": ready },
            }))
            .unwrap()
        };
        let pod = |ready: &str| -> Pod {
            from_value(json!({
                "metadata": { "name": "p", "namespace": "a" },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        let known = deployment("9", 0);
        lock(&state.pods).saw(&pod("False"));
        let found = |answers| {
            let mut findings = Findings::default();
            findings.deployment = Some(known.clone());
            if answers {
                findings.holds(Aspect::ApiServerAvailable, "Answering", "");
            }
            catch_up(&tenant, &state, &parts.ctx, &mut findings);
            let counted = findings.deployment.as_ref().unwrap().status.clone();
            let reason = findings.first_failure().map(|check| check.reason);
            let available = findings.has_found(Aspect::ApiServerAvailable);
            (counted.unwrap().ready_replicas, reason, available)
        };
        assert_eq!(found(true), (Some(0), Some("PodsStarting"), false));
        lock(&state.pods).saw(&pod("True"));
        for event in [
            Event::Init,
            Event::InitApply(deployment("10", 1)),
            Event::InitDone,
        ] {
            parts.watches.deployments.apply_watcher_event(&event);
        }
        assert_eq!(found(true), (Some(1), None, true));
        assert_eq!(found(false), (Some(1), None, false), "nothing was asked");
    }
}
