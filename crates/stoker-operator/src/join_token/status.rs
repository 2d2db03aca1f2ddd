//! What the status of a token says: where it stands, pure, and the writing of it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::v1alpha1::{JoinToken, JoinTokenStatus, TenantControlPlane};
use stoker_kube::conditions;

use super::reconcile::Error;
use super::state::tenant_of;
use crate::context::Context;

/// The token can be used.
pub const AVAILABLE: &str = "Available";
/// Its time is over.
pub const EXPIRED: &str = "Expired";
/// As many machines as may have joined.
pub const EXHAUSTED: &str = "Exhausted";
/// There is no such tenant.
pub const TENANT_NOT_FOUND: &str = "TenantNotFound";
/// The tenant cannot be reached.
pub const TENANT_NOT_READY: &str = "TenantNotReady";
/// A Secret of others has the name of ours.
pub const SECRET_NAME_TAKEN: &str = "SecretNameTaken";
/// It is deleted, and still known in a tenant that sleeps, or a machine that it has let in has yet to come.
pub const REVOCATION_PENDING: &str = "RevocationPending";

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// One of the reasons above.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The public half of what is published, if anything is.
    pub token_id: Option<String>,
}

impl Standing {
    /// With nothing published.
    pub fn withdrawn(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            token_id: None,
        }
    }
}

/// The status of `token` that stands so.
#[must_use]
pub fn status(token: &JoinToken, standing: &Standing, now: Timestamp) -> JoinTokenStatus {
    let old = token.status.clone().unwrap_or_default();
    let generation = token.metadata.generation.unwrap_or_default();
    let mut conditions = old.conditions;
    conditions::set(
        &mut conditions,
        "Ready",
        standing.reason == AVAILABLE,
        standing.reason,
        &standing.message,
        generation,
        now,
    );
    let secret_name = || super::build::secret_name(&token.name_any());
    JoinTokenStatus {
        observed_generation: generation,
        secret_name: standing.token_id.as_ref().map(|_| secret_name()),
        token_id: standing.token_id.clone(),
        expiration_time: token.expiration().map(Time),
        used: old.used,
        nodes: old.nodes,
        conditions,
    }
}

/// Writes where a token stands, and an event when that is news.
///
/// # Errors
/// The management API refused, or somebody else wrote at the same time.
pub async fn write(token: &JoinToken, standing: &Standing, ctx: &Context) -> Result<(), Error> {
    let now = Timestamp::now();
    let is_same = |token: &JoinToken| {
        let old = token.status.as_ref();
        old.is_some_and(|old| {
            let new = status(token, standing, now);
            conditions::equal_ignoring_times(&old.conditions, &new.conditions)
                && (&old.token_id, &old.secret_name) == (&new.token_id, &new.secret_name)
                && old.expiration_time == new.expiration_time
        })
    };
    if is_same(token) {
        return Ok(());
    }
    // What is counted in it is counted by others: never from a cache.
    let Some(latest) = read(token, ctx).await? else {
        return Ok(());
    };
    if is_same(&latest) {
        return Ok(());
    }
    let new = status(&latest, standing, now);
    let old = latest.status.as_ref();
    stoker_kube::replace_status(&ctx.client, &latest, old, &new)
        .await
        .map_err(Error::Write)?;
    let ready = |status: &JoinTokenStatus| {
        let condition = conditions::find(&status.conditions, "Ready");
        condition.map(|found| found.reason.clone())
    };
    if old.and_then(ready) != ready(&new) {
        let problem = [TENANT_NOT_FOUND, SECRET_NAME_TAKEN].contains(&standing.reason);
        let (reason, message) = (standing.reason, &standing.message);
        ctx.events
            .publish(
                &latest.object_ref(&()),
                problem,
                reason,
                "Reconcile",
                message,
            )
            .await;
    }
    Ok(())
}

/// The tokens of `tenant` as they are now.
///
/// # Errors
/// The management API refused.
pub async fn of_tenant(
    tenant: &ObjectRef<TenantControlPlane>,
    ctx: &Context,
) -> Result<Vec<JoinToken>, Error> {
    let namespace = tenant.namespace.as_deref().unwrap_or_default();
    let tokens: Api<JoinToken> = Api::namespaced(ctx.client.clone(), namespace);
    let found = tokens.list(&ListParams::default()).await;
    let mut found = found.map_err(|error| Error::Read(Box::new(error)))?.items;
    found.retain(|token| tenant_of(token) == *tenant);
    Ok(found)
}

/// The token as it is now; `None` when it is gone, or another one has its name.
///
/// # Errors
/// The management API refused.
pub async fn read(token: &JoinToken, ctx: &Context) -> Result<Option<JoinToken>, Error> {
    let namespace = token.namespace().unwrap_or_default();
    let tokens: Api<JoinToken> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = tokens.get_opt(&token.name_any()).await;
    let found = found.map_err(|error| Error::Read(Box::new(error)))?;
    Ok(found.filter(|found| found.uid() == token.uid()))
}
