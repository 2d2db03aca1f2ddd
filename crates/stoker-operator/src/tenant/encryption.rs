//! Changes of what encrypts a tenant's stored values: what the API servers serve is looked at, what is stored is rewritten,
//! and the next step is planned, which the pass after this one writes before anything else. What comes next is decided by
//! [`EncryptionKeys::next`].

mod loaded;
mod metrics;
mod rewrite;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::ObjectRef;
use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_control_plane::{Advance, EncryptionKeys, Observed, Refusal, Servers, Step, Stored};
use stoker_etcd::Pool;
use stoker_kube::conditions;
use time::OffsetDateTime;

use self::loaded::Evidence;
use self::rewrite::{Progress, Rewrite};
use super::inside::Inside;
use super::state::{TenantState, lock};
use super::status::Check;
use crate::context::Context;

/// The condition's type. A tenant whose encryption always was what it is by itself has none.
pub const CONDITION: &str = "EncryptionApplied";
const ENCRYPTED: &str = "Encrypted";
const DISTRIBUTING: &str = "EncryptionDistributing";
const REWRITING: &str = "EncryptionRewriting";
const ASLEEP: &str = "EncryptionWaiting";
const STUCK: &str = "EncryptionStuck";
const REFUSED: &str = "EncryptionRefused";

/// To rewrite within one pass; the rest is for the next ones.
const BUDGET: Duration = Duration::from_secs(10);
/// Until the API servers are looked at again: they look at their files once a minute.
const LOOK_AGAIN: time::Duration = time::Duration::seconds(4);
/// Until what was refused is tried again.
const TRY_AGAIN: time::Duration = time::Duration::seconds(30);

/// What is kept in memory of a change. All of it can be lost: it is found out again.
#[derive(Default)]
pub struct Underway {
    /// The keys, while they are not what is wanted.
    keys: Option<EncryptionKeys>,
    /// What they are to become in the next pass.
    planned: Option<EncryptionKeys>,
    /// In words, where they are as wanted and once were something else.
    at_rest: Option<String>,
    evidence: Evidence,
    /// The revision that this is of, and how far it is rewritten.
    rewrite: (u64, Rewrite),
}

impl Underway {
    /// These keys are written and copied.
    pub(super) fn applied(&mut self, keys: &EncryptionKeys, tenant: &Tenant) {
        let unknown = Observed {
            servers: Servers::Behind,
            stored: Stored::Unknown,
        };
        let rests = keys.next(&tenant.encryption, unknown) == Step::Rest;
        let was_changed = rests && keys.record().is_some();
        self.at_rest = was_changed.then(|| keys.describe());
        if self.rewrite.0 != keys.served_since() {
            self.rewrite = (keys.served_since(), Rewrite::default());
        }
        self.keys = (!rests).then(|| keys.clone());
        if rests {
            self.evidence = Evidence::default();
        }
    }

    /// The step that was planned, once.
    pub(super) fn take_planned(&mut self) -> Option<EncryptionKeys> {
        self.planned.take()
    }
}

/// Does what is next of a change of encryption; what was found goes into the condition. `None` where there is nothing
/// to say.
pub(super) async fn keep(
    object: &TenantControlPlane,
    tenant: &Tenant,
    place: Option<&(Pool, StorageId)>,
    state: &Arc<TenantState>,
    ctx: &Arc<Context>,
) -> Option<Check> {
    let (keys, at_rest) = {
        let underway = lock(&state.encryption);
        (underway.keys.clone(), underway.at_rest.clone())
    };
    let Some(keys) = keys else {
        return at_rest.map(|words| Check::holds(ENCRYPTED, format!("stored are {words}")));
    };
    let Some(place) = place else {
        state.look_again_by(OffsetDateTime::now_utc() + TRY_AGAIN);
        return Some(waits(ASLEEP, &keys, "the pool has a problem"));
    };
    let work = Work {
        tenant,
        keys: &keys,
        place,
        state,
        ctx,
    };
    let (step, check) = work.go().await;
    if let Step::Advance(advance) = step {
        work.plan(advance, object);
    }
    Some(check)
}

/// A change of one tenant's keys in one pass.
struct Work<'a> {
    tenant: &'a Tenant,
    keys: &'a EncryptionKeys,
    place: &'a (Pool, StorageId),
    state: &'a Arc<TenantState>,
    ctx: &'a Arc<Context>,
}

impl Work<'_> {
    /// Works until the keys must be changed, or something must be waited for.
    async fn go(&self) -> (Step, Check) {
        let unknown = Observed {
            servers: Servers::Behind,
            stored: Stored::Unknown,
        };
        let step = self.next(unknown);
        if step != Step::AwaitLoading {
            return (step, self.say(step, None));
        }
        let (servers, pod) = loaded::look(self).await;
        let mut stored = Stored::Unknown;
        loop {
            let step = self.next(Observed { servers, stored });
            let progress = match step {
                Step::Rewrite => self.rewrite().await,
                Step::Check => self.check().await,
                _ => {
                    if matches!(step, Step::AwaitLoading) {
                        self.state
                            .look_again_by(OffsetDateTime::now_utc() + LOOK_AGAIN);
                    }
                    return (step, self.say(step, pod.as_deref()));
                }
            };
            match progress {
                Progress::Found(found) => stored = found,
                Progress::Further(done) => {
                    self.state
                        .look_again_by(OffsetDateTime::now_utc() + time::Duration::SECOND);
                    let so_far = format!("{done} objects are rewritten so far");
                    return (step, waits(REWRITING, self.keys, &so_far));
                }
                Progress::Stuck(what) => {
                    self.state
                        .look_again_by(OffsetDateTime::now_utc() + TRY_AGAIN);
                    return (step, waits(STUCK, self.keys, &what));
                }
            }
        }
    }

    fn next(&self, seen: Observed) -> Step {
        self.keys.next(&self.tenant.encryption, seen)
    }

    /// Rewrites what is stored, then looks whether something of the old is left.
    async fn rewrite(&self) -> Progress {
        let client = match &*self.state.inside.lock().await {
            Inside::Open { connection, .. } => Some(connection.client.clone()),
            Inside::Closed | Inside::Starting { .. } => None,
        };
        let Some(client) = client else {
            return Progress::Stuck("no API server is connected".to_owned());
        };
        let since = self.keys.served_since();
        let mut rewrite = {
            let mut underway = lock(&self.state.encryption);
            let known = std::mem::take(&mut underway.rewrite);
            if known.0 == since {
                known.1
            } else {
                Rewrite::default()
            }
        };
        let until = Instant::now() + BUDGET;
        let resources = self.keys.rewritten();
        let progress = rewrite.go_on(&client, &resources, until).await;
        lock(&self.state.encryption).rewrite = (since, rewrite);
        match progress {
            Progress::Found(_) => {
                let found = self.check().await;
                if !matches!(found, Progress::Found(Stored::New)) {
                    lock(&self.state.encryption).rewrite = (since, Rewrite::default());
                }
                match found {
                    Progress::Found(Stored::Old) => {
                        let left =
                            "values that nobody could rewrite are left; they are tried again";
                        Progress::Stuck(left.to_owned())
                    }
                    found => found,
                }
            }
            unfinished => unfinished,
        }
    }

    /// Looks at every value in the pool.
    async fn check(&self) -> Progress {
        let Some(leftover) = self.keys.leftover() else {
            return Progress::Found(Stored::New);
        };
        let (pool, id) = self.place;
        let (mut left, mut example) = (0_u64, None);
        let seen = pool
            .see_values(id, |key, head| {
                if leftover.is(key, head) {
                    left += 1;
                    example.get_or_insert_with(|| key.to_owned());
                }
            })
            .await;
        if let Err(error) = seen {
            return Progress::Stuck(format!("the pool cannot be looked at: {error}"));
        }
        let Some(example) = example else {
            return Progress::Found(Stored::New);
        };
        tracing::info!(left, example, "values of the old encryption are left");
        Progress::Found(Stored::Old)
    }

    /// The next pass writes it.
    fn plan(&self, advance: Advance, object: &TenantControlPlane) {
        match self.keys.after(advance, &self.tenant.encryption) {
            Ok(planned) => {
                tracing::info!(
                    ?advance,
                    revision = self.keys.revision() + 1,
                    "encryption changes"
                );
                lock(&self.state.encryption).planned = planned;
                self.state.unsettle();
                self.ctx.wake(ObjectRef::from_obj(object));
            }
            Err(error) => {
                tracing::warn!(error = %error, "no key can be made");
                self.state
                    .look_again_by(OffsetDateTime::now_utc() + TRY_AGAIN);
            }
        }
    }

    fn say(&self, step: Step, pod: Option<&str>) -> Check {
        match step {
            Step::Refuse(Refusal::ByHand) => Check::fails(
                REFUSED,
                "the encryption configuration was written by hand and is left as it is: leave spec.kubernetes.encryption out",
            ),
            Step::Refuse(Refusal::ResourcesOfPlugin) => Check::fails(
                REFUSED,
                "with provider kms the resources stay as they are: change them together with a change from or to another provider",
            ),
            Step::AwaitServers => waits(ASLEEP, self.keys, "no API server runs"),
            Step::AwaitLoading => {
                let pod = pod.unwrap_or("of the tenant");
                let plugin = if self.keys.as_yaml().contains("- kms:") {
                    ", which needs its KMS plugin to answer"
                } else {
                    ""
                };
                let what = format!(
                    "the API server of pod {pod} does not serve it yet{plugin}; it looks once a minute"
                );
                waits(DISTRIBUTING, self.keys, &what)
            }
            Step::Rewrite | Step::Check => {
                waits(REWRITING, self.keys, "what is stored is rewritten")
            }
            Step::Advance(_) | Step::Rest => waits(
                DISTRIBUTING,
                self.keys,
                "the API servers get the next configuration",
            ),
        }
    }
}

fn waits(reason: &'static str, keys: &EncryptionKeys, what: &str) -> Check {
    Check::fails(reason, format!("{}: {what}", keys.describe()))
}

/// The condition, if the tenant has one.
#[must_use]
pub fn condition(status: &TenantControlPlaneStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, CONDITION)
}

/// Whether somebody must do something about what it says.
pub(super) fn is_problem(condition: &Condition) -> bool {
    matches!(condition.reason.as_str(), STUCK | REFUSED)
}

/// Its reason, if the tenant has the condition.
#[must_use]
pub fn reason(status: &TenantControlPlaneStatus) -> Option<&str> {
    condition(status).map(|condition| condition.reason.as_str())
}
