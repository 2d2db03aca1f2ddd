//! The operator in this process, against a real API server and a real pool without nodes, with every single request of a
//! tenant's life failing once: refused before it is sent, its answer lost, answered with an error, or never answered
//! because the operator died. Each ends as if nothing had been.

// The operator's whole work is one future, which a runtime of this process takes.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the operator's own process is not used here")]
mod bare;
#[path = "operator_support/births.rs"]
mod births;
#[path = "operator_support/deletions.rs"]
mod deletions;
#[path = "operator_support/faults.rs"]
mod faults;
#[path = "operator_support/in_process.rs"]
mod in_process;
#[path = "operator_support/inside.rs"]
mod inside;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;
#[path = "operator_support/witness.rs"]
mod witness;
#[path = "operator_support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use bare::until;
use births::{out_of_order, trials, undisturbed};
use faults::{Call, Failure, Sent, only, writes};
use inside::Inside;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use world::{QUIET, Trial, World, assert_right};

/// How a call can fail while the operator lives on; the last ones are for the operator like the one before.
const FAILURES: [(&str, Failure); 7] = [
    ("refused", Failure::Refused),
    ("lost", Failure::AnswerLost),
    ("panicked", Failure::Panics),
    ("conflict", Failure::Status(409)),
    ("internal", Failure::Status(500)),
    ("forbidden", Failure::Status(403)),
    ("throttled", Failure::Status(429)),
];

/// How the operator can die at a call.
const DEATHS: [(&str, Failure); 2] = [
    ("before", Failure::DiesBefore),
    ("after", Failure::DiesAfter),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_is_in_order_and_a_pass_that_changes_nothing_writes_nothing() {
    let mut world = World::start().await;
    let reference = undisturbed(&world).await;
    let sent = &reference.sent;
    println!("requests of a birth: {}", sent.len());
    assert!(sent.len() <= 40, "{} requests", sent.len());

    // The finalizer, then the identity, then everything else.
    let finalizer = only(sent, "apply", "tenantcontrolplanes", "");
    let identity = only(sent, "patch", "tenantcontrolplanes", "status");
    assert!(finalizer.answered.unwrap() < identity.begun);
    for write in
        writes(sent).filter(|write| ![finalizer.begun, identity.begun].contains(&write.begun))
    {
        assert!(
            identity.answered.unwrap() < write.begun,
            "{} comes first",
            write.call
        );
    }
    // The Deployment once, after everything that its pods need.
    let deployment = only(sent, "apply", "deployments", "");
    for kind in [
        "secrets",
        "configmaps",
        "networkpolicies",
        "poddisruptionbudgets",
        "services",
    ] {
        let needed: Vec<&Sent> = sent
            .iter()
            .filter(|sent| sent.call.resource == kind && sent.call.is_write())
            .collect();
        assert!(!needed.is_empty(), "no {kind}");
        for needed in needed {
            assert!(
                needed.answered.unwrap() < deployment.begun,
                "{} comes late",
                needed.call
            );
        }
    }
    // What is said of all that comes last, and once.
    let status = only(sent, "apply", "tenantcontrolplanes", "status");
    let others = writes(sent).filter(|write| write.begun != status.begun);
    for other in others.filter(|write| !write.call.is_event()) {
        assert!(
            other.answered.unwrap() < status.begun,
            "{} comes last",
            other.call
        );
    }

    a_pass_writes_nothing(&world, &["reference"]).await;
    a_restart_changes_nothing(&mut world, "reference").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_ends_right_whichever_call_fails() {
    let world = World::start().await;
    let reference = undisturbed(&world).await;
    let trials = trials(&calls(&reference.sent), &FAILURES);
    arm(&world, &trials);
    let begun = Instant::now();
    world.create_all(&trials).await;
    world
        .all("births", &trials, |trial| world.applied(&trial.namespace))
        .await;
    world.faults.quiet(QUIET).await;
    println!(
        "{} births with a failure: {:?}",
        trials.len(),
        begun.elapsed()
    );
    assert_right("never called", &spared(&world, &trials));
    let wrong = world.born_wrong(&reference, &trials).await;
    assert_right("in the end", &wrong);
    let untold = world.untold(&world.snapshot().await, &reference.said, &trials);
    assert_right("nobody was told", &untold);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_ends_right_whichever_call_the_operator_dies_at() {
    let mut world = World::start().await;
    let reference = undisturbed(&world).await;
    let trials = trials(&calls(&reference.sent), &DEATHS);
    arm(&world, &trials);
    let begun = Instant::now();
    world.create_all(&trials).await;
    world
        .all("the calls", &trials, |trial| {
            world.faults.struck(&trial.namespace)
        })
        .await;
    world.faults.quiet(QUIET).await;
    world.kill();
    let wrong = out_of_order(&world.snapshot().await, &reference, &trials);
    assert_right("when it died", &wrong);
    world.faults.disarm();
    world.restart();
    world
        .all("births", &trials, |trial| world.applied(&trial.namespace))
        .await;
    world.faults.quiet(QUIET).await;
    println!(
        "{} births with a death: {:?}",
        trials.len(),
        begun.elapsed()
    );
    let wrong = world.born_wrong(&reference, &trials).await;
    assert_right("in the end", &wrong);
}

/// A further pass over the tenant of the namespace `reference`.
async fn a_pass_writes_nothing(world: &World, subjects: &[&str]) {
    for subject in subjects {
        world.faults.forget(subject);
    }
    let annotate =
        json!({ "metadata": { "annotations": { "test/look": format!("{:?}", Instant::now()) } } });
    let tenants = world.bare.tenants("reference");
    let patch = Patch::Merge(annotate);
    tenants
        .patch("one", &PatchParams::default(), &patch)
        .await
        .unwrap();
    tokio::time::sleep(QUIET).await;
    for subject in subjects {
        let again = world.faults.sent(subject);
        assert_eq!(
            writes(&again).count(),
            0,
            "a further pass writes: {again:?}"
        );
    }
}

/// An operator that knows nothing applies everything again and finds it so.
async fn a_restart_changes_nothing(world: &mut World, namespace: &str) {
    let before = world.versions(namespace).await;
    world.faults.forget(namespace);
    world.restart();
    until("the Deployment is applied again", async || {
        let again = world.faults.sent(namespace);
        again
            .iter()
            .any(|sent| sent.call.is("apply", "deployments", "") && sent.answered.is_some())
    })
    .await;
    world.faults.quiet(QUIET).await;
    let mut after = world.versions(namespace).await;
    after.retain(|object, version| before.get(object) != Some(version));
    assert!(after.is_empty(), "changed by a restart: {after:?}");
}

/// Without and with a time for which the data is kept, in seconds.
const RETENTIONS: [(&str, i64); 2] = [("purged", 0), ("kept", 3600)];

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_right_whichever_call_fails() {
    let world = World::start().await;
    let (trials, usual) = deletion_trials(&world, &FAILURES[..5]).await;
    world.bear(&trials).await;
    arm(&world, &trials);
    let begun = Instant::now();
    world.delete_all(&trials).await;
    world
        .all("deletions", &trials, |trial| {
            world.witness.gone(&trial.namespace)
        })
        .await;
    world.faults.quiet(QUIET).await;
    println!(
        "{} deletions with a failure: {:?}",
        trials.len(),
        begun.elapsed()
    );
    assert_right("never called", &spared(&world, &trials));
    assert_right("in the end", &world.left_wrong(&trials).await);
    let snapshot = world.snapshot().await;
    assert_right("nobody was told", &world.untold(&snapshot, &usual, &trials));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_right_whichever_call_the_operator_dies_at() {
    let mut world = World::start().await;
    let (trials, _) = deletion_trials(&world, &DEATHS).await;
    world.bear(&trials).await;
    arm(&world, &trials);
    let begun = Instant::now();
    world.delete_all(&trials).await;
    world
        .all("the calls", &trials, |trial| {
            world.faults.struck(&trial.namespace)
        })
        .await;
    world.faults.quiet(QUIET).await;
    world.kill();
    let snapshot = world.snapshot().await;
    assert_right(
        "when it died",
        &world.gone_too_soon(&snapshot, &trials).await,
    );
    world.faults.disarm();
    world.restart();
    world
        .all("deletions", &trials, |trial| {
            world.witness.gone(&trial.namespace)
        })
        .await;
    world.faults.quiet(QUIET).await;
    println!(
        "{} deletions with a death: {:?}",
        trials.len(),
        begun.elapsed()
    );
    assert_right("in the end", &world.left_wrong(&trials).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_configured_in_order_and_whichever_call_fails() {
    let mut world = World::start().await;
    undisturbed(&world).await;
    let inside = Inside::start(&world, "reference").await;
    let subject = inside.subject();
    inside.run_pod(&world).await;
    inside.configured(&world).await;
    world.faults.quiet(QUIET).await;
    let (without, within) = (world.faults.sent("reference"), world.faults.sent(&subject));
    println!(
        "requests until Ready: {}, inside: {}",
        without.len(),
        within.len()
    );
    assert!(without.len() <= 40, "{} requests", without.len());
    // Inside, each object once; that the tenant is ready is said after all of them.
    let calls: Vec<Call> = writes(&within).map(|sent| sent.call.clone()).collect();
    assert!(
        calls
            .iter()
            .all(|call| call.verb == "apply" && call.nth == 0),
        "{calls:?}"
    );
    let names = calls
        .iter()
        .map(|call| format!("{} {}", call.resource, call.name));
    let ours = inside.ours().await;
    assert_eq!(names.collect::<BTreeSet<_>>(), ours);
    // Accounts before the pods that run as them.
    let accounts = within
        .iter()
        .filter(|sent| sent.call.resource == "serviceaccounts");
    let accounts = accounts
        .filter(|sent| sent.call.is_write())
        .filter_map(|sent| sent.answered)
        .max();
    for kind in ["deployments", "daemonsets"] {
        assert!(
            accounts < Some(only(&within, "apply", kind, "").begun),
            "{kind} come first"
        );
    }
    let last = within.iter().filter_map(|sent| sent.answered).max();
    let status = without
        .iter()
        .rfind(|sent| sent.call.is("apply", "tenantcontrolplanes", "status"));
    assert!(last < status.map(|status| status.begun));
    a_pass_writes_nothing(&world, &["reference", &subject]).await;
    world.witness.forget("reference");
    a_restart_changes_nothing(&mut world, "reference").await;
    assert_eq!(world.witness.said("reference"), BTreeSet::new());

    let begun = Instant::now();
    // All at once in every way, but for a panic, which ends the pass, and each alone in one way.
    let ways = FAILURES.map(|(_, failure)| failure);
    let gone = [(calls.as_slice(), Failure::Status(404))].into_iter();
    let together = ways.iter().filter(|failure| **failure != Failure::Panics);
    let all = gone.chain(together.map(|failure| (calls.as_slice(), *failure)));
    let alone = calls.iter().zip(ways.iter().cycle());
    let alone = alone.map(|(call, failure)| (std::slice::from_ref(call), *failure));
    let mut turn = 0;
    for (calls, failure) in all.chain(alone) {
        turn += 1;
        inside.disturbed(&world, turn, calls, failure).await;
    }
    println!("{turn} configurations with failures: {:?}", begun.elapsed());
    assert_eq!(inside.ours().await, ours);
    a_pass_writes_nothing(&world, &["reference", &subject]).await;
}

/// Trials for every call of a deletion, and what an undisturbed one says.
async fn deletion_trials(
    world: &World,
    failures: &[(&str, Failure)],
) -> (Vec<Trial>, BTreeSet<String>) {
    let (mut all, mut usual) = (Vec::new(), BTreeSet::new());
    for (kind, retention) in RETENTIONS {
        let sent = world.undisturbed_deletion(kind, retention).await;
        println!("requests of a deletion, {kind}: {}", sent.len());
        usual.extend(world.witness.said(kind));
        all.extend(deletions::trials(
            (kind, retention),
            &calls(&sent),
            failures,
        ));
    }
    (all, usual)
}

fn spared(world: &World, trials: &[Trial]) -> Vec<String> {
    let spared = trials
        .iter()
        .filter(|trial| !world.faults.struck(&trial.namespace));
    spared.map(ToString::to_string).collect()
}

fn arm(world: &World, trials: &[Trial]) {
    for trial in trials {
        world
            .faults
            .arm(&trial.namespace, trial.call.clone(), trial.failure);
    }
}

fn calls(sent: &[Sent]) -> Vec<Call> {
    sent.iter().map(|sent| sent.call.clone()).collect()
}
