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
use stoker_kube::conditions;
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
/// When they have not followed within a pass; twice as long after each that is in vain.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(64);
/// Nobody's name: what is asked about is what everybody may do.
const ANYBODY: &str = "stoker-write-probe";

/// What an API server was seen to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    refuses: WritePermissions,
    /// What it refuses, it refuses because its guard does not answer.
    unguarded: bool,
}

/// What is known of the API servers of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Those that do as wanted, by the name of their pod.
    pods: BTreeMap<String, WritePermissions>,
    /// Passes in vain, one after the other.
    in_vain: u32,
}

/// Asks the API servers that are not known to do as wanted, and has the kubelets show them the change.
pub(super) async fn verify(
    object: &TenantControlPlane,
    tenant: &Tenant,
    keys: Option<&Keys>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
    is_applied: bool,
    findings: &mut Findings,
) {
    let wanted = tenant.write_permissions;
    let known = known(object, state);
    if !wanted.is_limited() && known.as_ref().is_none_or(|known| known.reason == WRITABLE) {
        return;
    }
    let pods = lock(&state.pods).serving();
    if !is_applied || pods.is_empty() {
        // One that becomes ready asks for another pass.
        findings.writes = nobody_to_ask(known.as_ref(), wanted);
        return;
    }
    let mut verified = lock(&state.writes).clone();
    let pods_verified = &mut verified.pods;
    pods_verified.retain(|name, seen| *seen == wanted && pods.contains_key(name));
    let unverified = pods
        .iter()
        .filter(|(name, _)| !pods_verified.contains_key(*name));
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
        let behind = behind(&mut asked, wanted, &mut verified.pods).await;
        if asked.is_empty() || begun.elapsed() > PATIENCE {
            break behind;
        }
        if told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
            let lagging: Vec<_> = asked.iter().map(|(name, _)| name.clone()).collect();
            refresh_pods(&tenant.namespace, &lagging, ctx).await;
            told = Some(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    };
    behind.extend(unreached);
    let wait = look_again_after(verified.in_vain);
    verified.in_vain = if behind.is_empty() {
        0
    } else {
        verified.in_vain.saturating_add(1)
    };
    *lock(&state.writes) = verified;
    findings.writes = Some(match behind.first() {
        None => applied(wanted),
        Some((pod, seen)) => {
            state.look_again_by(OffsetDateTime::now_utc() + wait);
            not_yet(pod, *seen)
        }
    });
}

/// The condition, if the tenant has one.
#[must_use]
pub fn condition(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, CONDITION)
}

/// The condition as last written.
fn known(object: &TenantControlPlane, state: &TenantState) -> Option<Condition> {
    let written = lock(&state.written);
    let status = written.as_ref().or(object.status.as_ref())?;
    condition(status).cloned()
}

/// Nobody answers whether writes are refused as wanted. What was found before stays only if it is about the same wish:
/// API servers that start later do as wanted from their start.
fn nobody_to_ask(known: Option<&Condition>, wanted: WritePermissions) -> Option<Check> {
    if known.is_some_and(|known| known.message == applied(wanted).message) {
        return None;
    }
    let message = format!(
        "no API server of the tenant can be asked whether it {}",
        refuses(wanted)
    );
    Some(Check::fails(APPLYING, message))
}

fn look_again_after(in_vain: u32) -> Duration {
    let factor = 1 << in_vain.min(5);
    (LOOK_AGAIN * factor).min(LOOK_AGAIN_AT_MOST)
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
    let connection = connect(address, tenant, keys, None, ctx).await;
    connection.ok().map(|connection| connection.client)
}

/// Asks once; keeps in `asked` those that are behind, and returns what is the matter with each.
async fn behind(
    asked: &mut Vec<(String, Client)>,
    wanted: WritePermissions,
    verified: &mut BTreeMap<String, WritePermissions>,
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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

    #[test]
    fn what_nobody_answers_is_not_said_to_be_applied() {
        let known = |check: &Check| Condition {
            type_: CONDITION.to_owned(),
            status: "True".to_owned(),
            reason: check.reason.to_owned(),
            message: check.message.clone(),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        let none = WritePermissions::default();
        let frozen = known(&applied(ALL));
        assert_eq!(nobody_to_ask(Some(&frozen), ALL), None, "as seen before");
        for (known, wanted) in [(None, ALL), (Some(&frozen), none)] {
            let check = nobody_to_ask(known, wanted).unwrap();
            assert!(!check.holds && check.reason == APPLYING);
        }
    }

    #[test]
    fn an_api_server_that_does_not_follow_is_asked_less_and_less() {
        let seconds: Vec<_> = (0..8).map(|n| look_again_after(n).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
