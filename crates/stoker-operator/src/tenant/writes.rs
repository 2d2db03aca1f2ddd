//! Whether the API servers of a tenant refuse what `spec.writePermissions` says, found out by asking each of them what
//! it would decide. Their configuration reaches them through the kubelet, so that a change restarts nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus, WritePermissions};
use stoker_control_plane::Keys;
use time::OffsetDateTime;

use super::connection::connect;
use super::inside::Inside;
use super::secrets::refresh_pods;
use super::state::{TenantState, lock};
use super::status::{Check, Findings};
use crate::context::Context;

/// The condition's type. A tenant that was never frozen has none.
pub const CONDITION: &str = "WritePermissionsApplied";
/// Its reason while something is refused, by every API server.
pub const LIMITED: &str = "WritesLimited";
const WRITABLE: &str = "Writable";
const APPLYING: &str = "Applying";
const GUARD_AWAY: &str = "GuardUnreachable";

/// For all API servers to follow, within one pass. Usually they do within a second.
const PATIENCE: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(150);
/// A kubelet that is told before it has seen the change looks too early.
const TELL_AGAIN: Duration = Duration::from_millis(1200);
/// When they have not followed within a pass.
const LOOK_AGAIN: time::Duration = time::Duration::seconds(2);
/// Nobody's name: what is asked about is what everybody may do.
const ANYBODY: &str = "stoker-write-probe";

/// What an API server was seen to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    refuses: WritePermissions,
    /// What it refuses, it refuses because its guard does not answer.
    unguarded: bool,
}

/// The pods whose API servers are known to do as wanted, by name.
pub type Verified = BTreeMap<String, WritePermissions>;

/// Asks the API servers that are not known to do as wanted, and has the kubelets show them the change.
pub(super) async fn verify(
    object: &TenantControlPlane,
    tenant: &Tenant,
    keys: Option<&Keys>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
    findings: &mut Findings,
) {
    let wanted = tenant.write_permissions;
    let is_writable = |status: &TenantControlPlaneStatus| {
        condition(status).is_none_or(|found| found.reason == WRITABLE)
    };
    let written = lock(&state.written).as_ref().map(is_writable);
    let writable = written.or_else(|| object.status.as_ref().map(is_writable));
    if !wanted.is_limited() && writable.unwrap_or(true) {
        return;
    }
    let pods = lock(&state.pods).serving();
    if pods.is_empty() {
        // One that becomes ready asks for another pass.
        return;
    }
    let mut verified = lock(&state.writes).clone();
    verified.retain(|name, seen| *seen == wanted && pods.contains_key(name));
    let unverified = pods
        .iter()
        .filter(|(name, _)| !verified.contains_key(*name));
    let mut asked = Vec::new();
    let mut unreached = Vec::new();
    for (name, address) in unverified {
        match client(*address, tenant, keys, state, ctx).await {
            Some(client) => asked.push((name.clone(), client)),
            None => unreached.push((name.clone(), None)),
        }
    }
    let begun = Instant::now();
    let mut told: Option<Instant> = None;
    let mut behind = loop {
        let behind = behind(&mut asked, wanted, &mut verified).await;
        if asked.is_empty() || begun.elapsed() > PATIENCE {
            break behind;
        }
        if told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
            refresh_pods(tenant, state, ctx).await;
            told = Some(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    };
    behind.extend(unreached);
    lock(&state.writes).clone_from(&verified);
    findings.writes = Some(match behind.first() {
        None => applied(wanted),
        Some((pod, seen)) => {
            let soon = OffsetDateTime::now_utc() + LOOK_AGAIN;
            let mut look_again = lock(&state.look_again);
            *look_again = Some(look_again.map_or(soon, |known| known.min(soon)));
            not_yet(pod, *seen)
        }
    });
}

/// The condition, if the tenant has one.
#[must_use]
pub fn condition(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == CONDITION)
}

/// The connection that is open, or another one for as long as this takes.
pub(super) async fn client(
    address: IpAddr,
    tenant: &Tenant,
    keys: Option<&Keys>,
    state: &TenantState,
    ctx: &Context,
) -> Option<Client> {
    if let Inside::Open { connection, .. } = &*state.inside.lock().await
        && connection.address == address
    {
        return Some(connection.client.clone());
    }
    let connection = connect(address, tenant, keys, ctx).await;
    connection.ok().map(|connection| connection.client)
}

/// Asks once; keeps in `asked` those that are behind, and returns what is the matter with each.
async fn behind(
    asked: &mut Vec<(String, Client)>,
    wanted: WritePermissions,
    verified: &mut Verified,
) -> Vec<(String, Option<Seen>)> {
    let answers = join_all(asked.iter().map(|(_, client)| look(client))).await;
    let mut behind = Vec::new();
    for ((name, _), seen) in asked.iter().zip(answers) {
        let seen = seen.ok();
        if seen.is_some_and(|seen| seen.refuses == wanted && !seen.unguarded) {
            verified.insert(name.clone(), wanted);
        } else {
            behind.push((name.clone(), seen));
        }
    }
    asked.retain(|(name, _)| !verified.contains_key(name));
    behind
}

/// What an API server would decide about a write of each kind.
async fn look(client: &Client) -> Result<Seen, kube::Error> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let ask = async |verb: &str| {
        let review = serde_json::from_value(json!({ "spec": {
            "user": ANYBODY,
            "resourceAttributes": {
                "verb": verb, "version": "v1", "resource": "configmaps", "namespace": "default",
                "name": ANYBODY,
            },
        }}));
        let review: SubjectAccessReview = review.map_err(kube::Error::SerdeError)?;
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        // RBAC and Node never deny, they only do not allow: it was the guard, or its absence.
        let denied = status.denied == Some(true);
        let unguarded = denied
            && status
                .evaluation_error
                .is_some_and(|error| !error.is_empty());
        Ok::<_, kube::Error>((denied, unguarded))
    };
    let answers = try_join_all(["create", "update", "delete"].map(ask)).await?;
    Ok(Seen {
        refuses: WritePermissions {
            block_creation: answers[0].0,
            block_update: answers[1].0,
            block_deletion: answers[2].0,
        },
        unguarded: answers.iter().any(|(_, unguarded)| *unguarded),
    })
}

fn applied(wanted: WritePermissions) -> Check {
    if !wanted.is_limited() {
        return Check::holds(WRITABLE, "no write is refused, as every API server says");
    }
    Check::holds(LIMITED, format!("every API server {}", refuses(wanted)))
}

fn refuses(limited: WritePermissions) -> String {
    let all = [
        (limited.block_creation, "create"),
        (limited.block_update, "change"),
        (limited.block_deletion, "delete"),
    ];
    let refused = all.iter().filter(|(refused, _)| *refused);
    let words: Vec<_> = refused.map(|(_, word)| *word).collect();
    match words.as_slice() {
        [] => "refuses no write".to_owned(),
        [one] => format!("refuses to {one} objects"),
        [some @ .., last] => format!("refuses to {} and {last} objects", some.join(", ")),
    }
}

fn not_yet(pod: &str, seen: Option<Seen>) -> Check {
    match seen {
        None => Check::fails(
            APPLYING,
            format!("the API server of pod {pod} does not answer"),
        ),
        Some(seen) if seen.unguarded => Check::fails(
            GUARD_AWAY,
            format!(
                "the API server of pod {pod} {}, but its guard does not answer: look at the pod's container stoker-warden",
                refuses(seen.refuses)
            ),
        ),
        Some(seen) => Check::fails(
            APPLYING,
            format!(
                "the API server of pod {pod} {} until its kubelet shows it the change",
                refuses(seen.refuses)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: WritePermissions = WritePermissions {
        block_creation: true,
        block_update: true,
        block_deletion: true,
    };

    #[test]
    fn the_condition_says_what_is_refused_and_where_it_is_not_yet() {
        assert_eq!(
            applied(ALL).message,
            "every API server refuses to create, change and delete objects"
        );
        let none = WritePermissions::default();
        assert_eq!(applied(none).reason, WRITABLE);
        let seen = |refuses, unguarded| Some(Seen { refuses, unguarded });
        for (seen, reason) in [
            (None, APPLYING),
            (seen(none, false), APPLYING),
            (seen(ALL, true), GUARD_AWAY),
        ] {
            let check = not_yet("a", seen);
            assert!(!check.holds && check.message.contains("pod a"));
            assert_eq!(check.reason, reason);
        }
    }
}
