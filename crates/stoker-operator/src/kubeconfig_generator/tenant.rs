//! One pass over the kubeconfigs of a tenant.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::labels::{GENERATED_BY, GENERATED_FOR, PAUSED};
use stoker_api::v1alpha1::{KubeconfigGenerator, TenantControlPlane};
use stoker_control_plane::generated_name;
use stoker_kube::{Desired, ObjectKey};
use time::OffsetDateTime;

use super::build::{self, Problem};
use super::dereference;
use super::reconcile::Error;
use super::state::TenantKubeconfigs;
use crate::contained::contained;
use crate::context::Context;
use crate::metrics::{Controller, Outcome};

/// A Secret of others in the place of ours is looked at again this often: nobody tells when it goes.
const RECHECK_BLOCKED: Duration = Duration::from_mins(1);

/// Makes, renews and removes the kubeconfigs of a tenant.
///
/// # Errors
/// The management API refused something; what failed is in the generator's status.
pub async fn reconcile(
    tenant: Arc<TenantControlPlane>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::Kubeconfigs);
    if tenant.meta().deletion_timestamp.is_some() || tenant.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    let reference = ObjectRef::from_obj(tenant.as_ref());
    let selected = ctx.kubeconfigs.selected(&tenant);
    let state = ctx.kubeconfigs.state(&reference);
    let mut failure = None;
    let mut keep = selected.untouched;
    for generator in &selected.wanted {
        let name = generator.name_any();
        let result = match contained(keep_up(&tenant, generator, &state, &ctx)).await {
            Ok(result) => result,
            Err(error) => {
                let refused = Problem::Refused(error.to_string());
                failure.get_or_insert(error);
                Err(refused)
            }
        };
        if state.record(&name, result) {
            ctx.kubeconfigs.wake_generator_soon(&name);
        }
        keep.insert(name);
    }
    for forgotten in state.retain(&keep) {
        ctx.kubeconfigs.wake_generator_soon(&forgotten);
    }
    if let Err(error) = remove_others(&tenant, &keep, &state, &ctx).await {
        failure.get_or_insert(error);
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    ctx.kubeconfigs.tenant_failures.succeeded(&reference);
    ctx.metrics.finished(Controller::Kubeconfigs, Outcome::Done);
    Ok(next_look(&state))
}

/// The next certificate that is due. Whatever else matters wakes the tenant by itself, but for what is not ours.
fn next_look(state: &TenantKubeconfigs) -> Action {
    let due = state.next_due().map(|due| {
        let wait = (due - OffsetDateTime::now_utc()).max(time::Duration::SECOND);
        Duration::try_from(wait).unwrap_or(Duration::from_secs(1))
    });
    let waits = due
        .into_iter()
        .chain(state.is_blocked().then_some(RECHECK_BLOCKED));
    waits
        .min()
        .map_or_else(Action::await_change, Action::requeue)
}

/// Makes sure of one kubeconfig; returns when it is due, or why it is not there.
async fn keep_up(
    tenant: &TenantControlPlane,
    generator: &KubeconfigGenerator,
    state: &TenantKubeconfigs,
    ctx: &Context,
) -> Result<Result<OffsetDateTime, Problem>, Error> {
    let status = tenant.status.as_ref();
    if status.is_none_or(|status| status.kubeconfig.admin.secret_name.is_empty()) {
        return Ok(Err(Problem::NotYet("entry".to_owned())));
    }
    let inputs = match build::inputs(tenant, generator) {
        Ok(inputs) => inputs,
        Err(problem) => return Ok(Err(problem)),
    };
    let (name, now) = (generator.name_any(), OffsetDateTime::now_utc());
    if let Some(due) = state.is_settled(&name, &inputs, now) {
        return Ok(Ok(due));
    }
    let disturbances = state.disturbances();
    let found = dereference::read(tenant, &name, ctx).await;
    let found = found.map_err(|error| Error::Read(Box::new(error)))?;
    let wanted = match build::build(tenant, &name, &inputs, &found, now) {
        Ok(wanted) => wanted,
        Err(problem) => return Ok(Err(problem)),
    };
    let desired = Desired::of(&wanted.secret).map_err(Error::Serialize)?;
    let applied = ctx.writer.apply_all(vec![desired], &state.ledger, 1).await;
    applied.map_err(Error::Write)?;
    state.settle(&name, inputs, disturbances);
    Ok(Ok(wanted.renew_at))
}

/// Removes the kubeconfigs that no generator asks for any more.
async fn remove_others(
    tenant: &TenantControlPlane,
    generators: &BTreeSet<String>,
    state: &TenantKubeconfigs,
    ctx: &Context,
) -> Result<(), Error> {
    let name = tenant.name_any();
    let kept = generators.iter().map(|kept| generated_name(&name, kept));
    for key in state.others(&kept.collect()) {
        remove(&name, &key, ctx).await?;
        state.ledger.forget(&key);
    }
    Ok(())
}

/// Removes a kubeconfig, if it still is one that was made for `tenant`.
async fn remove(tenant: &str, key: &ObjectKey, ctx: &Context) -> Result<(), Error> {
    let namespace = key.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let found = secrets.get_metadata_opt(key.name()).await;
    let Some(found) = found.map_err(|error| Error::Read(Box::new(error)))? else {
        return Ok(());
    };
    let labels = found.labels();
    let made_for = labels.get(GENERATED_FOR).is_some_and(|name| name == tenant);
    if !made_for || !labels.contains_key(GENERATED_BY) {
        return Ok(());
    }
    let deleted = ctx.writer.delete(key, found.uid().as_deref()).await;
    if deleted.map_err(Error::Write)? {
        tracing::info!(secret = %key, "kubeconfig removed");
    }
    Ok(())
}
