//! What a generator's status says: a pure function of what came of the passes over tenants.

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use stoker_api::v1alpha1::{
    KubeconfigGenerator, KubeconfigGeneratorError, KubeconfigGeneratorStatus,
};
use stoker_kube::conditions;

use super::build::Problem;
use crate::context::Context;

/// Errors in a status; the count says how many more there are.
const ERRORS: usize = 20;

/// What came of all selected tenants.
#[derive(Default)]
struct Findings {
    selected: i64,
    available: i64,
    /// Tenants, `namespace/name`, and what is wrong; sorted.
    problems: Vec<(String, Problem)>,
}

/// Writes the status, and an event when the reason is another one. Nothing while it is not known what is selected.
///
/// # Errors
/// The management API refused.
pub async fn write(
    generator: &KubeconfigGenerator,
    ctx: &Context,
) -> Result<(), stoker_kube::Error> {
    let Some(findings) = look(generator, ctx) else {
        return Ok(());
    };
    let old = generator.status.clone().unwrap_or_default();
    let generation = generator.meta().generation.unwrap_or_default();
    let new = status(&old, generation, &findings, Timestamp::now());
    let known = generator.status.as_ref();
    if !stoker_kube::write_status(&ctx.client, generator, known, &new).await? {
        return Ok(());
    }
    let reason = |status: &KubeconfigGeneratorStatus| {
        let ready = conditions::find(&status.conditions, "Ready");
        ready.map(|one| (one.reason.clone(), one.message.clone()))
    };
    let (before, Some((now, message))) = (reason(&old), reason(&new)) else {
        return Ok(());
    };
    if before.is_none_or(|(before, _)| before != now) {
        let problem = now == FAILED;
        let reference = generator.object_ref(&());
        ctx.events
            .publish(&reference, problem, &now, "Generate", &message)
            .await;
    }
    Ok(())
}

fn look(generator: &KubeconfigGenerator, ctx: &Context) -> Option<Findings> {
    let mut findings = Findings::default();
    let name = generator.name_any();
    for tenant in ctx.stores.tenants.state() {
        let leaving = tenant.metadata.deletion_timestamp.is_some();
        if !ctx.kubeconfigs.selects(generator, &tenant)? || leaving {
            continue;
        }
        findings.selected += 1;
        let state = ctx.kubeconfigs.get(&ObjectRef::from_obj(tenant.as_ref()));
        match state.and_then(|state| state.result(&name)) {
            Some(Ok(_)) => findings.available += 1,
            Some(Err(problem)) => {
                let namespace = tenant.namespace().unwrap_or_default();
                let who = format!("{namespace}/{}", tenant.name_any());
                findings.problems.push((who, problem));
            }
            None => {}
        }
    }
    findings
        .problems
        .sort_by(|(one, _), (other, _)| one.cmp(other));
    Some(findings)
}

const FAILED: &str = "KubeconfigsFailed";

fn status(
    old: &KubeconfigGeneratorStatus,
    generation: i64,
    findings: &Findings,
    now: Timestamp,
) -> KubeconfigGeneratorStatus {
    let Findings {
        selected,
        available,
        problems,
    } = findings;
    let error = |(resource, problem): &(String, Problem)| KubeconfigGeneratorError {
        resource: resource.clone(),
        message: problem.to_string(),
    };
    let mut conditions = old.conditions.clone();
    let ready = available == selected;
    let count = format!("{available} of {selected} selected tenants have their kubeconfig");
    let first = problems.iter().find(|(_, problem)| !problem.is_wait());
    let (reason, message) = match first {
        Some((who, problem)) => (FAILED, format!("{count}; {who}: {problem}")),
        None if ready => ("Available", count),
        None => ("KubeconfigsPending", count),
    };
    conditions::set(
        &mut conditions,
        "Ready",
        ready,
        reason,
        &message,
        generation,
        now,
    );
    KubeconfigGeneratorStatus {
        observed_generation: generation,
        resources: *selected,
        available_resources: *available,
        errors: problems.iter().take(ERRORS).map(error).collect(),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(selected: i64, problems: &[Problem]) -> Findings {
        let left = i64::try_from(problems.len()).unwrap();
        let named = problems.iter().enumerate();
        Findings {
            selected,
            available: selected - left,
            problems: named
                .map(|(i, problem)| (format!("a/{i}"), problem.clone()))
                .collect(),
        }
    }

    #[test]
    fn the_status_counts_and_names_the_first_thing_that_a_person_must_mend() {
        let waits = Problem::NotYet("admin.conf".into());
        let fails = Problem::Foreign("one-x".into());
        for (problems, reason, ready) in [
            (vec![], "Available", "True"),
            (vec![waits.clone()], "KubeconfigsPending", "False"),
            (vec![waits, fails], "KubeconfigsFailed", "False"),
        ] {
            let now = Timestamp::UNIX_EPOCH;
            let found = findings(5, &problems);
            let status = status(&KubeconfigGeneratorStatus::default(), 3, &found, now);
            let condition = &status.conditions[0];
            assert_eq!((&*condition.reason, &*condition.status), (reason, ready));
            assert_eq!(status.errors.len(), problems.len());
            assert_eq!((status.resources, status.observed_generation), (5, 3));
            assert_eq!(status.available_resources, found.available);
            assert_eq!(condition.message.contains("one-x"), reason == FAILED);
        }
    }

    #[test]
    fn a_fleet_that_fails_does_not_fill_the_status() {
        let problems = vec![Problem::Masters; 1000];
        let found = findings(1000, &problems);
        let old = KubeconfigGeneratorStatus::default();
        let status = status(&old, 1, &found, Timestamp::UNIX_EPOCH);
        assert_eq!((status.errors.len(), status.available_resources), (20, 0));
    }
}
