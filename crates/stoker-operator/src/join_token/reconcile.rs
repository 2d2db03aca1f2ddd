//! One pass over a token.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use stoker_api::labels::{JOIN_TOKEN_FINALIZER, PAUSED};
use stoker_api::v1alpha1::{JoinToken, TenantControlPlane};
use stoker_control_plane::{Names, entry};
use stoker_kube::{Desired, ObjectKey, Writer};
use stoker_pki::{BootstrapToken, JoinCredential, pins};
use stoker_tenant::{JoinSecret, join_rights, join_secret, join_secret_name};

use super::build;
use super::decision::{awaited_until, gives_up_at, is_awaited};
use super::state::{Published, tenant_of};
use super::status::{
    self, AVAILABLE, EXHAUSTED, EXPIRED, REVOCATION_PENDING, SECRET_NAME_TAKEN, Standing,
    TENANT_NOT_FOUND, TENANT_NOT_READY,
};
use crate::FIELD_MANAGER;
use crate::contained::Panicked;
use crate::context::Context;
use crate::finalizer::set_finalizer;
use crate::metrics::{Controller, Outcome};

/// All writes into a tenant in one pass.
const LIMIT: Duration = Duration::from_secs(15);
/// A Secret of others in the place of ours is looked at again this often: nobody tells when it goes.
const RECHECK_BLOCKED: Duration = Duration::from_mins(1);
const KUBE_SYSTEM: &str = "kube-system";

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot read the token, its Secret or the tenant's authority: {0}")]
    Read(#[source] Box<kube::Error>),
    #[error("cannot put the tenant and the finalizer on the token: {0}")]
    Adopt(#[source] Box<kube::Error>),
    #[error("{0}")]
    Write(#[source] stoker_kube::Error),
    #[error("cannot write inside the tenant: {0}")]
    Inside(#[source] stoker_kube::Error),
    #[error("writing inside the tenant takes longer than {0:?}")]
    InsideTimeout(Duration),
    #[error("cannot make the token: {0}")]
    Make(#[source] stoker_pki::Error),
    #[error("an object of the token does not turn into JSON")]
    Serialize(#[source] serde_json::Error),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Error {
    /// `CamelCase` reason for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read(error) | Self::Adopt(error) => stoker_kube::category_of(error),
            Self::Write(error) | Self::Inside(error) => error.category(),
            Self::InsideTimeout(_) => "InsideTimeout",
            Self::Make(_) => "TokenNotMade",
            Self::Serialize(_) => "NotSerialized",
            Self::Panicked(_) => Panicked::CATEGORY,
        }
    }
}

/// Publishes a token, takes it back when it has ended, and lets it go when it is deleted.
///
/// # Errors
/// Something failed that is worth trying again.
pub async fn reconcile(token: Arc<JoinToken>, ctx: Arc<Context>) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::JoinToken);
    let leaving = token.meta().deletion_timestamp.is_some();
    if !leaving && token.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    let standing = if leaving {
        leave(&token, &ctx).await?
    } else {
        Some(stand(&token, &ctx).await?)
    };
    if let Some(standing) = &standing {
        status::write(&token, standing, &ctx).await?;
    }
    ctx.join_tokens
        .failures
        .succeeded(&ObjectRef::from_obj(token.as_ref()));
    ctx.metrics.finished(Controller::JoinToken, Outcome::Done);
    let reason = standing.map(|standing| standing.reason);
    Ok(next_look(&token, reason, Timestamp::now()))
}

/// At its end, and when its last machine has not come; everything else tells by itself.
fn next_look(token: &JoinToken, reason: Option<&str>, now: Timestamp) -> Action {
    let wait = |at: Timestamp| {
        let wait = at.duration_since(now).max(SignedDuration::ZERO);
        wait.unsigned_abs() + Duration::from_millis(50)
    };
    let end = token.expiration().filter(|end| *end > now);
    // It may have come to that since the token was looked at.
    let stands = [Some(AVAILABLE), Some(TENANT_NOT_READY)].contains(&reason);
    let given_up = gives_up_at(token).filter(|_| stands);
    let blocked = (reason == Some(SECRET_NAME_TAKEN)).then_some(RECHECK_BLOCKED);
    let leaving = reason == Some(REVOCATION_PENDING);
    let awaited = awaited_until(token, now).filter(|_| leaving);
    let times = end.into_iter().chain(given_up).chain(awaited).map(wait);
    let next = blocked.into_iter().chain(times).min();
    next.map_or_else(Action::await_change, Action::requeue)
}

/// Brings about how the token is to stand.
async fn stand(token: &JoinToken, ctx: &Context) -> Result<Standing, Error> {
    let reference = tenant_of(token);
    let tenant = ctx.stores.tenants.get(&reference);
    let tenant = tenant.filter(|tenant| {
        tenant.metadata.deletion_timestamp.is_none() && !belongs_to_another(token, tenant)
    });
    let Some(tenant) = tenant else {
        let message = format!(
            "there is no TenantControlPlane {:?} in this namespace",
            reference.name
        );
        return Ok(Standing::withdrawn(TENANT_NOT_FOUND, message));
    };
    adopt(token, &tenant, ctx).await?;
    let now = Timestamp::now();
    if token.expiration().is_none_or(|end| end <= now) {
        withdraw(token, ctx).await?;
        return Ok(Standing::withdrawn(EXPIRED, "its time is over"));
    }
    let state = token.status.clone().unwrap_or_default();
    let awaited = state.nodes.iter().any(|node| is_awaited(node, now));
    if state.used >= token.spec.uses && !awaited {
        withdraw(token, ctx).await?;
        let message = format!("all {} machines have joined", token.spec.uses);
        return Ok(Standing::withdrawn(EXHAUSTED, message));
    }
    let not_yet = |message: &str| {
        Ok(Standing {
            reason: TENANT_NOT_READY,
            message: message.to_owned(),
            token_id: state.token_id.clone(),
        })
    };
    let status = tenant.status.as_ref();
    let server = status.and_then(|status| status.control_plane_endpoint.clone());
    let Some(server) = server.filter(|server| !server.is_empty()) else {
        return not_yet("the tenant has no address yet");
    };
    let Some((connection, client)) = ctx.join_tokens.client(&reference) else {
        return not_yet("the tenant's API server is not up: it starts, or sleeps");
    };
    let own = ObjectRef::from_obj(token);
    let published = |id: &str| Published {
        uid: token.uid(),
        connection,
        server: server.clone(),
        id: id.to_owned(),
    };
    if let Some(id) = state.token_id.as_deref()
        && ctx.join_tokens.published(&own) == Some(published(id))
    {
        return Ok(available(token, id));
    }
    let standing = publish(token, &server, client, ctx).await?;
    if let (AVAILABLE, Some(id)) = (standing.reason, &standing.token_id) {
        ctx.join_tokens.publish(own, published(id));
    }
    Ok(standing)
}

fn available(token: &JoinToken, id: &str) -> Standing {
    let name = build::secret_name(&token.name_any());
    Standing {
        reason: AVAILABLE,
        message: format!("machines join with what is in the Secret {name:?}"),
        token_id: Some(id.to_owned()),
    }
}

/// Whether the token was made for a tenant of the same name that is gone.
fn belongs_to_another(token: &JoinToken, tenant: &TenantControlPlane) -> bool {
    let mut owners = token.owner_references().iter();
    owners.any(|owner| {
        owner.kind == TenantControlPlane::kind(&())
            && Some(&owner.uid) != tenant.meta().uid.as_ref()
    })
}

/// The tenant takes the token along when it goes, and the token takes along what it has made.
async fn adopt(token: &JoinToken, tenant: &TenantControlPlane, ctx: &Context) -> Result<(), Error> {
    let mut finalizers = token.finalizers().to_vec();
    let held = finalizers.iter().any(|name| name == JOIN_TOKEN_FINALIZER);
    let owned = token.owner_references().iter();
    let owned = owned.map(|owner| &owner.uid);
    if held
        && owned
            .into_iter()
            .any(|uid| Some(uid) == tenant.meta().uid.as_ref())
    {
        return Ok(());
    }
    if !held {
        finalizers.push(JOIN_TOKEN_FINALIZER.to_owned());
    }
    let mut owners = token.owner_references().to_vec();
    owners.extend(tenant.owner_ref(&()));
    let patch = Patch::Merge(json!({ "metadata": {
        "finalizers": finalizers, "ownerReferences": owners,
        "resourceVersion": token.resource_version(), "uid": token.uid(),
    }}));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    tokens(token, ctx)
        .patch_metadata(&token.name_any(), &params, &patch)
        .await
        .map(drop)
        .map_err(|error| Error::Adopt(Box::new(error)))
}

fn tokens(token: &JoinToken, ctx: &Context) -> Api<JoinToken> {
    Api::namespaced(ctx.client.clone(), &token.namespace().unwrap_or_default())
}

/// Secret, id in the status, then the token inside: wherever the operator dies, what is inside is known outside.
async fn publish(
    token: &JoinToken,
    server: &str,
    client: Client,
    ctx: &Context,
) -> Result<Standing, Error> {
    let namespace = token.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let name = build::secret_name(&token.name_any());
    let authority = Names::of_named(&token.spec.tenant_control_plane).ca;
    let (found, authority) = tokio::try_join!(secrets.get_opt(&name), secrets.get_opt(&authority))
        .map_err(|error| Error::Read(Box::new(error)))?;
    if found
        .as_ref()
        .is_some_and(|found| !build::is_ours(token, found))
    {
        let message = format!("the Secret {name:?} is somebody else's: rename this token");
        return Ok(Standing::withdrawn(SECRET_NAME_TAKEN, message));
    }
    let Some(pins) = authority.and_then(|secret| pins_of(&secret)) else {
        return Ok(Standing::withdrawn(
            TENANT_NOT_READY,
            "the tenant has no authority yet",
        ));
    };
    let held = found.and_then(|found| build::held(token, &found));
    let bootstrap = held.map_or_else(BootstrapToken::generate, Ok);
    let credential = JoinCredential {
        server: server.to_owned(),
        ca_hashes: pins,
        token: bootstrap.map_err(Error::Make)?,
    };
    let secret = build::secret(token, &credential).map_err(Error::Make)?;
    let secret = Desired::of(&secret).map_err(Error::Serialize)?;
    ctx.writer.apply(&secret).await.map_err(Error::Write)?;
    let id = credential.token.id().to_owned();
    // The cache may lag behind what this process itself has written.
    let latest = status::read(token, ctx).await?;
    let known = latest.and_then(|latest| latest.status?.token_id);
    if known.as_ref() != Some(&id) {
        if let Some(former) = known {
            take_back(&former, &client).await?;
        }
        let standing = Standing {
            reason: TENANT_NOT_READY,
            message: "it is being published".to_owned(),
            token_id: Some(id.clone()),
        };
        status::write(token, &standing, ctx).await?;
    }
    put_inside(token, &credential.token, client).await?;
    Ok(available(token, &id))
}

/// The pins of the authorities that a tenant believes: two while one takes the place of another.
fn pins_of(authority: &Secret) -> Option<Vec<String>> {
    let text = &authority.data.as_ref()?.get(entry::CA_CERTIFICATE)?.0;
    pins(std::str::from_utf8(text).ok()?).ok()
}

async fn put_inside(
    token: &JoinToken,
    bootstrap: &BootstrapToken,
    client: Client,
) -> Result<(), Error> {
    let Some(expiration) = token.expiration() else {
        return Ok(());
    };
    let secret = join_secret(&JoinSecret {
        id: bootstrap.id(),
        secret: bootstrap.secret(),
        expiration,
        description: &format!("JoinToken {}", token.name_any()),
    });
    let (roles, cluster_roles) = join_rights();
    let mut desired = vec![Desired::of(&secret)];
    desired.extend(roles.iter().map(Desired::of));
    desired.extend(cluster_roles.iter().map(Desired::of));
    let desired: Result<Vec<_>, _> = desired.into_iter().collect();
    let desired = desired.map_err(Error::Serialize)?;
    let writer = Writer::new(client, FIELD_MANAGER);
    let applied = desired.iter().map(|one| writer.apply(one));
    let applied = futures::future::try_join_all(applied);
    match tokio::time::timeout(LIMIT, applied).await {
        Ok(written) => written.map(drop).map_err(Error::Inside),
        Err(_) => Err(Error::InsideTimeout(LIMIT)),
    }
}

/// Removes what was published, as far as it can be reached. What stays inside a tenant that sleeps ends by itself, and lets
/// nobody in: who may join is not decided there.
async fn withdraw(token: &JoinToken, ctx: &Context) -> Result<(), Error> {
    ctx.join_tokens.forget(&ObjectRef::from_obj(token));
    let published = token
        .status
        .as_ref()
        .and_then(|status| status.token_id.as_ref());
    let Some(id) = published else {
        return Ok(());
    };
    if let Some((_, client)) = ctx.join_tokens.client(&tenant_of(token)) {
        take_back(id, &client).await?;
    }
    remove_secret(token, ctx).await
}

/// Removes a token inside the tenant.
async fn take_back(id: &str, client: &Client) -> Result<(), Error> {
    let writer = Writer::new(client.clone(), FIELD_MANAGER);
    let key = ObjectKey::of::<Secret>(Some(KUBE_SYSTEM), &join_secret_name(id));
    match tokio::time::timeout(LIMIT, writer.delete(&key, None)).await {
        Ok(deleted) => deleted.map(drop).map_err(Error::Inside),
        Err(_) => Err(Error::InsideTimeout(LIMIT)),
    }
}

async fn remove_secret(token: &JoinToken, ctx: &Context) -> Result<(), Error> {
    let namespace = token.namespace().unwrap_or_default();
    let name = build::secret_name(&token.name_any());
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = secrets.get_opt(&name).await;
    let found = found.map_err(|error| Error::Read(Box::new(error)))?;
    let Some(found) = found.filter(|found| build::is_ours(token, found)) else {
        return Ok(());
    };
    let key = ObjectKey::of::<Secret>(Some(&namespace), &name);
    let deleted = ctx.writer.delete(&key, found.uid().as_deref()).await;
    deleted.map(drop).map_err(Error::Write)
}

/// Takes a deleted token back and lets it go; `Some` while it cannot be taken back.
async fn leave(token: &JoinToken, ctx: &Context) -> Result<Option<Standing>, Error> {
    let reference = tenant_of(token);
    ctx.join_tokens.forget(&ObjectRef::from_obj(token));
    let published = token
        .status
        .as_ref()
        .and_then(|status| status.token_id.clone());
    let tenant = ctx.stores.tenants.get(&reference);
    let lives = tenant.is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none());
    let ended = token.expiration().is_none_or(|end| end <= Timestamp::now());
    match (&published, ctx.join_tokens.client(&reference)) {
        (Some(id), Some((_, client))) => take_back(id, &client).await?,
        (Some(_), None) if lives && !ended => {
            return Ok(Some(Standing {
                reason: REVOCATION_PENDING,
                message: "nobody can join by it any more; it goes once the tenant's API server, which is not up, has \
                    forgotten it, or its time is over"
                    .to_owned(),
                token_id: published,
            }));
        }
        _ => {}
    }
    remove_secret(token, ctx).await?;
    if lives && awaited_until(token, Timestamp::now()).is_some() {
        return Ok(Some(Standing::withdrawn(
            REVOCATION_PENDING,
            "nobody can join by it any more; it goes once the machines that it has let in have come, or have not within \
             ten minutes: without it nobody takes the joining taint off them",
        )));
    }
    set_finalizer(
        &tokens(token, ctx),
        token.meta(),
        JOIN_TOKEN_FINALIZER,
        false,
    )
    .await
    .map_err(|error| Error::Adopt(Box::new(error)))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::decision::COMES_WITHIN;
    use super::*;

    #[test]
    fn a_token_whose_last_machine_does_not_come_is_looked_at_when_nobody_waits_for_it_any_more() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let token = |used: i32| -> JoinToken {
            let node = json!({ "name": "w1", "key": "k", "admissionTime": now.to_string() });
            serde_json::from_value(json!({
                "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
                "metadata": { "name": "workers", "creationTimestamp": now.to_string() },
                "spec": { "tenantControlPlane": "one", "uses": 2 },
                "status": { "used": used, "nodes": [node] },
            }))
            .unwrap()
        };
        let in_seconds = |seconds: i64| {
            let wait = Duration::from_secs(seconds.unsigned_abs());
            Action::requeue(wait + Duration::from_millis(50))
        };
        let comes = COMES_WITHIN.as_secs();
        let look = |used, reason| next_look(&token(used), reason, now);
        assert_eq!(look(2, Some(AVAILABLE)), in_seconds(comes));
        assert_eq!(look(2, Some(TENANT_NOT_READY)), in_seconds(comes));
        // Others may come until it ends; of one that is exhausted nobody does.
        assert_eq!(look(1, Some(AVAILABLE)), in_seconds(3600));
        assert_eq!(look(2, Some(EXHAUSTED)), in_seconds(3600));
        let late = now.checked_add(COMES_WITHIN).unwrap();
        let looked = next_look(&token(2), Some(AVAILABLE), late);
        assert_eq!(looked, in_seconds(0), "it was waited for a moment ago");
    }
}
