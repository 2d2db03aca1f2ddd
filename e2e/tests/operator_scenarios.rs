//! The operator in this process, against a real API server and a real pool without nodes, with every single request of a
//! tenant's life failing once: refused before it is sent, its answer lost, answered with an error, or never answered
//! because the operator died. Each ends as if nothing had been.

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
#[path = "operator_support/witness.rs"]
mod witness;
#[path = "operator_support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use bare::until;
use births::{out_of_order, trials, undisturbed};
use faults::{Call, Failure, Sent};
use inside::Inside;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use world::{QUIET, Trial, World, assert_right};

/// How a call can fail while the operator lives on; the last ones are for the operator like the one before.
const FAILURES: [(&str, Failure); 6] = [
    ("refused", Failure::Refused),
    ("lost", Failure::AnswerLost),
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
    let world = World::start().await;
    let reference = undisturbed(&world).await;
    let sent = &reference.sent;
    println!("requests of a birth: {}", sent.len());
    for sent in sent {
        println!("  {:4} {:?} {}", sent.sent, sent.answered, sent.call);
    }
    assert!(sent.len() <= 40, "{} requests", sent.len());

    // The finalizer, then the identity, then everything else.
    let finalizer = only(sent, "apply", "tenantcontrolplanes", "");
    let identity = only(sent, "patch", "tenantcontrolplanes", "status");
    assert!(finalizer.answered.unwrap() < identity.sent);
    for write in writes(sent).filter(|write| ![finalizer.sent, identity.sent].contains(&write.sent))
    {
        assert!(
            identity.answered.unwrap() < write.sent,
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
            .filter(|sent| sent.call.is("apply", kind, ""))
            .collect();
        assert!(!needed.is_empty(), "no {kind}");
        for needed in needed {
            assert!(
                needed.answered.unwrap() < deployment.sent,
                "{} comes late",
                needed.call
            );
        }
    }
    // What is said of all that comes last, and once.
    let status = only(sent, "apply", "tenantcontrolplanes", "status");
    let others = writes(sent).filter(|write| write.sent != status.sent);
    for other in others.filter(|write| !write.call.is_event()) {
        assert!(
            other.answered.unwrap() < status.sent,
            "{} comes last",
            other.call
        );
    }

    world.faults.forget("reference");
    let annotate = json!({ "metadata": { "annotations": { "test/look": "again" } } });
    let tenants = world.bare.tenants("reference");
    let patch = Patch::Merge(annotate);
    tenants
        .patch("one", &PatchParams::default(), &patch)
        .await
        .unwrap();
    tokio::time::sleep(QUIET).await;
    let again = world.faults.sent("reference");
    assert_eq!(writes(&again).count(), 0, "a second pass writes: {again:?}");
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

/// Without and with a time for which the data is kept, in seconds.
const RETENTIONS: [(&str, i64); 2] = [("purged", 0), ("kept", 3600)];

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_right_whichever_call_fails() {
    let world = World::start().await;
    let (trials, usual) = deletion_trials(&world, &FAILURES[..4]).await;
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

/// The last thing that happens to a tenant is that it is said to be ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_configured_in_order_and_whichever_call_fails() {
    let world = World::start().await;
    undisturbed(&world).await;
    let inside = Inside::start(&world, "reference").await;
    let subject = inside.subject();
    world.faults.forget("reference");
    inside.run_pod(&world).await;
    until("the tenant is ready", async || {
        world.witness.says("reference", "Ready", "Available")
    })
    .await;
    world.faults.quiet(QUIET).await;
    let sent = world.faults.sent(&subject);
    for sent in &sent {
        println!("  {:4} {:?} {}", sent.sent, sent.answered, sent.call);
    }
    for sent in &world.faults.sent("reference") {
        println!("  {:4} {:?} {}", sent.sent, sent.answered, sent.call);
    }
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

fn writes(sent: &[Sent]) -> impl Iterator<Item = &Sent> {
    sent.iter().filter(|sent| sent.call.is_write())
}

/// The only request of its kind.
fn only<'a>(sent: &'a [Sent], verb: &str, resource: &str, subresource: &str) -> &'a Sent {
    let mut found = sent
        .iter()
        .filter(|sent| sent.call.is(verb, resource, subresource));
    let first = found.next();
    let first = first.unwrap_or_else(|| panic!("no {verb} of {resource} {subresource}"));
    assert!(
        found.next().is_none(),
        "more than one {verb} of {resource} {subresource}"
    );
    first
}
