//! What a `DataStore`'s status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use stoker_api::v1alpha1::{DataStore, DataStoreStatus};
use stoker_etcd::PoolFacts;
use stoker_kube::conditions;

use super::look::Look;
use super::pools::Entry;
use super::reconcile::Error;
use super::stock::Stock;
use crate::context::Context;

/// What the conditions are to say.
pub struct Verdict {
    /// Whether something must be mended before tenants are placed here.
    pub problem: bool,
    /// Whether the object is being deleted and has to stay.
    pub leaving: bool,
    ready: (&'static str, String),
    /// Whether a tenant stands behind every claim, else which are without one; `None` while they cannot be read.
    owners: Option<Result<(), String>>,
}

impl Verdict {
    /// What follows from a look; `kept_by` says why a store that is being deleted has to stay.
    #[must_use]
    pub fn of(look: &Look, stock: Option<&Stock>, kept_by: Option<String>) -> Self {
        let problem = match &look.entry {
            Entry::Open(open) => open.problem.clone(),
            Entry::Closed(reason, message) => Some((*reason, message.clone())),
        };
        let leaving = kept_by.is_some();
        Self {
            problem: problem.is_some(),
            leaving,
            owners: stock.map(|stock| stock.orphans(Timestamp::now()).map_or(Ok(()), Err)),
            ready: match (kept_by, problem) {
                (Some(kept_by), None) => ("DeletionBlocked", kept_by),
                (Some(kept_by), Some((_, message))) => {
                    ("DeletionBlocked", format!("{kept_by}; {message}"))
                }
                (None, Some(problem)) => problem,
                (None, None) => available(look.facts.as_ref()),
            },
        }
    }

    fn is_ready(&self) -> bool {
        !self.problem && !self.leaving
    }
}

fn available(facts: Option<&PoolFacts>) -> (&'static str, String) {
    let fit = "with a safe version and authentication on";
    match facts {
        Some(facts) if !facts.unreachable.is_empty() => {
            let answering = facts.members.len();
            let all = answering + facts.unreachable.len();
            let why: Vec<_> = facts.unreachable.iter().map(ToString::to_string).collect();
            let why = why.join("; ");
            let message = format!("{answering} of {all} members answer, {fit}; {why}");
            ("MembersAway", message)
        }
        _ => ("Available", format!("every member answers, {fit}")),
    }
}

/// Writes which tenants use the store into the status that was `last` written.
///
/// # Errors
/// The management API refused.
pub async fn count(
    object: &DataStore,
    ctx: &Context,
    last: DataStoreStatus,
    used_by: Vec<String>,
) -> Result<(), Error> {
    let new = DataStoreStatus {
        used_by,
        ..last.clone()
    };
    let written = stoker_kube::write_status(&ctx.client, object, Some(&last), &new).await;
    written.map(drop).map_err(Error::WriteStatus)
}

/// Writes the status, and events on what has become another; returns the status.
///
/// # Errors
/// The management API refused.
pub async fn write(
    object: &DataStore,
    ctx: &Context,
    verdict: &Verdict,
    version: Option<String>,
    used_by: Vec<String>,
) -> Result<DataStoreStatus, Error> {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let mut new = DataStoreStatus {
        observed_generation: generation,
        ready: verdict.is_ready(),
        version: version.or_else(|| old.version.clone()),
        used_by,
        conditions: old.conditions.clone(),
    };
    let now = Timestamp::now();
    let mut set = |type_, holds, reason, message: &str| {
        let conditions = &mut new.conditions;
        conditions::set(conditions, type_, holds, reason, message, generation, now);
    };
    let (reason, message) = &verdict.ready;
    set("Ready", verdict.is_ready(), reason, message);
    match &verdict.owners {
        Some(Ok(())) => set(
            "OwnersKnown",
            true,
            "EveryOwnerKnown",
            "every storage id in the pool is of a tenant or of data that is kept for its retention",
        ),
        Some(Err(orphans)) => set("OwnersKnown", false, "DataWithoutTenant", orphans),
        None => {}
    }
    let written = stoker_kube::write_status(&ctx.client, object, object.status.as_ref(), &new)
        .await
        .map_err(Error::WriteStatus)?;
    if !written {
        return Ok(new);
    }
    let reference = object.object_ref(&());
    for condition in changed(&old.conditions, &new.conditions) {
        let (reason, message) = (&condition.reason, &condition.message);
        tracing::info!(data_store = %object.name_any(), reason, message, "data store changed");
        let problem = condition.status != "True" || reason == "MembersAway";
        ctx.events
            .publish(&reference, problem, reason, "Check", message)
            .await;
    }
    Ok(new)
}

/// The conditions that people should hear of: with another status or reason than before. That all is as it should be
/// is no news of what was never otherwise, but for `Ready`.
fn changed<'a>(old: &[Condition], new: &'a [Condition]) -> Vec<&'a Condition> {
    let news = |condition: &&Condition| match old.iter().find(|old| old.type_ == condition.type_) {
        Some(old) => (&old.status, &old.reason) != (&condition.status, &condition.reason),
        None => condition.status != "True" || condition.type_ == "Ready",
    };
    new.iter().filter(news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_told() {
        let conditions = |all: &[(&str, bool, &str)]| {
            let mut list = Vec::new();
            for (type_, holds, reason) in all {
                let now = Timestamp::UNIX_EPOCH;
                conditions::set(&mut list, type_, *holds, reason, "", 1, now);
            }
            list
        };
        let told = |old: &[(&str, bool, &str)], new: &[(&str, bool, &str)]| -> Vec<String> {
            let (old, new) = (conditions(old), conditions(new));
            let told = changed(&old, &new);
            told.iter().map(|told| told.reason.clone()).collect()
        };
        let (good, bad) = (
            ("Ready", true, "Available"),
            ("Ready", false, "AuthDisabled"),
        );
        let (known, orphans) = (
            ("OwnersKnown", true, "Known"),
            ("OwnersKnown", false, "Orphans"),
        );
        assert_eq!(told(&[], &[bad]), ["AuthDisabled"], "it never was ready");
        assert_eq!(told(&[], &[good, known]), ["Available"]);
        assert_eq!(told(&[bad], &[bad]), [""; 0]);
        assert_eq!(
            told(&[bad], &[("Ready", false, "Unreachable")]),
            ["Unreachable"]
        );
        assert_eq!(told(&[good, known], &[good, orphans]), ["Orphans"]);
        assert_eq!(told(&[good, orphans], &[good, known]), ["Known"]);
    }
}
