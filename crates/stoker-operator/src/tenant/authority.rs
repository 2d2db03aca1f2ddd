//! Other authorities take the place of a tenant's: whether its pods are of what stands is looked at, and which nodes
//! have followed; the next step is planned, which the pass after this one writes before anything else. What comes next is
//! decided by [`RotatingAuthority::next`].

mod nodes;
mod published;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::ObjectRef;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_control_plane::{
    AuthorityObserved, AuthorityRole, AuthorityStep, Keys, RotatingAuthority, Servers,
};
use stoker_kube::conditions;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rollout::{self, Turn};
use super::state::{TenantState, lock};
use super::status::{Check, Findings};
use crate::context::Context;

/// The condition's type. A tenant whose authority is the one made at birth has none.
pub const CONDITION: &str = "CertificateAuthorityApplied";
const CURRENT: &str = "AuthorityCurrent";
const ROLLING_OUT: &str = "AuthorityRollingOut";
const AWAITS_NODES: &str = "AuthorityAwaitsNodes";
const FORMER_TRUSTED: &str = "AuthorityFormerTrusted";
const ASLEEP: &str = "AuthorityWaiting";
const REFUSED: &str = "AuthorityRefused";

/// Until pods are looked at again, of whose changes we hear anyway.
const PODS_AGAIN: time::Duration = time::Duration::seconds(4);
/// Until nodes are looked at again.
const NODES_AGAIN: time::Duration = time::Duration::seconds(15);
const NODES_LATER: time::Duration = time::Duration::minutes(10);
/// Until what failed is tried again.
const TRY_AGAIN: time::Duration = time::Duration::seconds(30);

/// What is kept in memory of a change. All of it can be lost: it is found out again.
#[derive(Default)]
pub struct Underway {
    /// The authorities that are not what is wanted.
    changing: Vec<Arc<RotatingAuthority>>,
    /// What they are to become in the next pass.
    planned: Option<Vec<Arc<RotatingAuthority>>>,
    /// All of them, where they are as wanted and once were others.
    at_rest: Option<[Arc<RotatingAuthority>; 2]>,
}

impl Underway {
    /// These are written and copied.
    pub(super) fn applied(&mut self, keys: &Keys, tenant: &Tenant) {
        let all = [&keys.certificate_authority, &keys.front_proxy_authority];
        let wanted = &tenant.certificate_authority;
        let rests = |authority: &RotatingAuthority| {
            authority.next(wanted, UNKNOWN, OffsetDateTime::UNIX_EPOCH) == AuthorityStep::Rest
        };
        let changing = all.into_iter().filter(|authority| !rests(authority));
        self.changing = changing.cloned().collect();
        let was_changed = self.changing.is_empty() && all[0].was_changed();
        self.at_rest = was_changed.then(|| all.map(Arc::clone));
    }

    /// The steps that were planned, once.
    pub(super) fn take_planned(&mut self) -> Option<Vec<Arc<RotatingAuthority>>> {
        self.planned.take()
    }
}

const UNKNOWN: AuthorityObserved = AuthorityObserved {
    servers: Servers::Behind,
    nodes_behind: None,
};

/// Does what is next of a change of the authorities; what was found goes into the condition. `None` where there is nothing
/// to say.
pub(super) async fn keep(
    object: &TenantControlPlane,
    tenant: &Tenant,
    pool_is_sound: bool,
    findings: &Findings,
    state: &TenantState,
    ctx: &Context,
) -> Option<Check> {
    let (changing, at_rest) = {
        let underway = lock(&state.authority);
        (underway.changing.clone(), underway.at_rest.clone())
    };
    if changing.is_empty() && at_rest.is_none() {
        return None;
    }
    let now = OffsetDateTime::now_utc();
    if let Some(first) = changing.first().filter(|_| !pool_is_sound) {
        state.look_again_by(now + TRY_AGAIN);
        let what = "the pool, which has the keys' copy, has a problem";
        return Some(waits(ASLEEP, first, what));
    }
    let (servers, which) = servers(tenant, findings, state);
    let (nodes_behind, behind) = look(&changing, tenant, servers, state, now).await;
    let seen = AuthorityObserved {
        servers,
        nodes_behind,
    };
    let wanted = &tenant.certificate_authority;
    let (mut said, mut planned) = (None, Vec::new());
    for authority in changing {
        let step = authority.next(wanted, seen, now);
        let again = match step {
            AuthorityStep::Advance(advance) => {
                tracing::info!(role = ?authority.role(), ?advance, "authority changes");
                planned.push(authority.after(advance, wanted, now));
                None
            }
            AuthorityStep::AwaitRollout => Some(now + PODS_AGAIN),
            AuthorityStep::AwaitNodes => Some(now + nodes_again(&authority, now)),
            AuthorityStep::AwaitTime(until) => Some(until),
            AuthorityStep::AwaitServers | AuthorityStep::Rest | AuthorityStep::Refuse => None,
        };
        if let Some(at) = again {
            state.look_again_by(at);
        }
        said.get_or_insert_with(|| say(step, &authority, &which, &behind));
    }
    plan(planned, object, state, ctx);
    match (said, at_rest) {
        (None, Some(all)) => Some(rests(&all, (servers, &which), object, state).await),
        (said, _) => said,
    }
}

/// How many nodes have not followed, and which, or why that is not known, in words. Both authorities go with the nodes, which
/// know the cluster's alone, so that pods are replaced once for both.
async fn look(
    changing: &[Arc<RotatingAuthority>],
    tenant: &Tenant,
    servers: Servers,
    state: &TenantState,
    now: OffsetDateTime,
) -> (Option<usize>, String) {
    let mut all = changing.iter();
    let Some(cluster) = all.find(|authority| authority.role() == AuthorityRole::Cluster) else {
        return (Some(0), String::new());
    };
    let seen = AuthorityObserved {
        servers,
        nodes_behind: None,
    };
    if cluster.next(&tenant.certificate_authority, seen, now) != AuthorityStep::AwaitNodes {
        return (None, String::new());
    }
    match nodes::behind(cluster, state).await {
        Ok(behind) => (Some(behind.count), behind.describe()),
        Err(why) => (None, why),
    }
}

/// The former one is accepted until the last pod that knows it is replaced, and aggregated API servers are told. What replaces
/// pods later is another matter.
async fn rests(
    all: &[Arc<RotatingAuthority>; 2],
    (servers, which): (Servers, &str),
    object: &TenantControlPlane,
    state: &TenantState,
) -> Check {
    let written = lock(&state.written).clone();
    let status = written.as_ref().or(object.status.as_ref());
    if status.and_then(reason) == Some(CURRENT) {
        return Check::holds(CURRENT, all[0].describe());
    }
    let what = match servers {
        Servers::Current => match published::keep_only(all, state).await {
            Ok(()) => return Check::holds(CURRENT, all[0].describe()),
            Err(why) => format!("aggregated API servers may go by the former one: {why}"),
        },
        Servers::None => return waits(ASLEEP, &all[0], "no API server runs"),
        Servers::Behind | Servers::Unproven => {
            format!("the control-plane pods are replaced by ones that know no other: {which}")
        }
    };
    state.look_again_by(OffsetDateTime::now_utc() + PODS_AGAIN);
    waits(ROLLING_OUT, &all[0], &what)
}

/// Until nodes are looked at again: the longer some have not followed, the later.
fn nodes_again(authority: &RotatingAuthority, now: OffsetDateTime) -> time::Duration {
    let since = authority.signs_since().unwrap_or_default();
    let waited = time::Duration::seconds(now.unix_timestamp().saturating_sub(since));
    (waited / 20_i32).clamp(NODES_AGAIN, NODES_LATER)
}

/// Whether each pod has read what it reads at its start since that stands, and is ready; else one that has not.
fn servers(tenant: &Tenant, findings: &Findings, state: &TenantState) -> (Servers, String) {
    if tenant.replicas == 0 {
        return (Servers::None, String::new());
    }
    let behind = |which: &str| (Servers::Behind, which.to_owned());
    if findings.rollout == Some(Turn::Waiting) {
        return behind("they wait for their turn");
    }
    let applied = state.deployed_generation();
    let checksum = lock(&state.restart_checksum).clone();
    let (Some(live), Some(applied), Some(checksum)) = (&findings.deployment, applied, checksum)
    else {
        return behind("nothing is applied yet");
    };
    if let Some(name) = lock(&state.pods).of_another(&checksum).next() {
        return behind(&format!("{name} is still there"));
    }
    let counted = live.status.as_ref().and_then(|status| status.replicas);
    if rollout::is_complete(live, applied) && counted == Some(tenant.replicas) {
        (Servers::Current, String::new())
    } else {
        behind("new ones are not ready yet")
    }
}

/// The next pass writes them.
fn plan(
    steps: Vec<Result<Option<RotatingAuthority>, stoker_pki::Error>>,
    object: &TenantControlPlane,
    state: &TenantState,
    ctx: &Context,
) {
    let steps: Result<Vec<_>, _> = steps.into_iter().collect();
    match steps {
        Ok(steps) => {
            let steps: Vec<_> = steps.into_iter().flatten().map(Arc::new).collect();
            if !steps.is_empty() {
                lock(&state.authority).planned = Some(steps);
                state.unsettle();
                ctx.wake(ObjectRef::from_obj(object));
            }
        }
        Err(error) => {
            tracing::warn!(error = %error, "no authority can be made");
            state.look_again_by(OffsetDateTime::now_utc() + TRY_AGAIN);
        }
    }
}

fn say(step: AuthorityStep, authority: &RotatingAuthority, which: &str, behind: &str) -> Check {
    match step {
        AuthorityStep::AwaitServers => waits(ASLEEP, authority, "no API server runs"),
        AuthorityStep::Refuse => Check::fails(
            REFUSED,
            format!(
                "{}: its certificate does not allow it to vouch for another one (path length 0), and whoever knows it alone would be cut off; it stays",
                authority.describe()
            ),
        ),
        AuthorityStep::AwaitNodes => {
            let what = format!(
                "{behind}. stoker-node has them within minutes (of this version; its log says what keeps it); without it see docs/nodes.md; delete Nodes that are gone"
            );
            waits(AWAITS_NODES, authority, &what)
        }
        AuthorityStep::AwaitTime(until) => {
            let until = until.format(&Rfc3339).unwrap_or_default();
            let what = format!(
                "all nodes have certificates of the new one; those of the former one are accepted until {until} (spec.kubernetes.certificateAuthority.formerTrustSeconds)"
            );
            waits(FORMER_TRUSTED, authority, &what)
        }
        AuthorityStep::AwaitRollout | AuthorityStep::Advance(_) | AuthorityStep::Rest => {
            let what = "the control-plane pods are replaced by ones that know what stands";
            let gap = if which.is_empty() { "" } else { ": " };
            waits(ROLLING_OUT, authority, &format!("{what}{gap}{which}"))
        }
    }
}

fn waits(reason: &'static str, authority: &RotatingAuthority, what: &str) -> Check {
    Check::fails(reason, format!("{}: {what}", authority.describe()))
}

/// The condition, if the tenant has one.
#[must_use]
pub fn condition(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, CONDITION)
}

/// Its reason, if the tenant has the condition.
#[must_use]
pub fn reason(status: &TenantControlPlaneStatus) -> Option<&str> {
    condition(status).map(|condition| condition.reason.as_str())
}
