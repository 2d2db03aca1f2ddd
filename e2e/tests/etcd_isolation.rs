//! Tenants are apart in a shared pool: everything that a tenant's certificate can try, against real
//! etcd with TLS and access control. The same suite finds the holes of a version below the floor,
//! which shows that it can fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "etcd_support/case.rs"]
mod case;
#[path = "etcd_support/clients.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod clients;
#[path = "etcd_support/cluster.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod cluster;
#[path = "etcd_support/cluster_wide.rs"]
mod cluster_wide;
#[path = "etcd_support/identity.rs"]
mod identity;
#[path = "etcd_support/keyspace.rs"]
mod keyspace;
#[path = "etcd_support/transactions.rs"]
mod transactions;
#[path = "etcd_support/users_and_roles.rs"]
mod users_and_roles;
#[path = "etcd_support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use case::{Expect, Got, Verdict, print_table};
use cluster::Cluster;
use identity::Outcome;
use stoker_lab::versions::{ETCD, ETCD_BELOW_FLOOR};
use world::World;

async fn run_all(world: &World) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    // What would break the cluster if it worked comes last.
    let suites = [
        keyspace::cases(),
        transactions::cases(),
        cluster_wide::cases(),
        users_and_roles::cases(),
    ];
    for case in suites.iter().flatten() {
        let verdict = case.run(world).await;
        if verdict.is_bypass() {
            world.calm().await?;
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// No case gets past the permission check, and the victim has what it had.
async fn assert_apart(title: &str, world: &World) -> Result<()> {
    let begun = Instant::now();
    let before = world.evidence().await?;
    let verdicts = run_all(world).await?;
    let bypasses = print_table(title, begun, &verdicts);
    let unexpected: Vec<_> = verdicts
        .iter()
        .filter(|one| !one.is_as_expected())
        .collect();
    assert_eq!((bypasses, unexpected.len()), (0, 0), "{unexpected:#?}");
    pretty_eq(&before, &world.evidence().await?);
    Ok(())
}

fn pretty_eq(before: &str, after: &str) {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.lines().collect(), after.lines().collect());
    let gone: Vec<_> = before.difference(&after).collect();
    let new: Vec<_> = after.difference(&before).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone: {gone:#?}\nnew: {new:#?}"
    );
}

#[tokio::test]
async fn tenants_are_apart() -> Result<()> {
    let cluster = Cluster::start(ETCD, 1).await?;
    let world = Box::pin(World::new(&cluster, &cluster.addresses()[0])).await?;
    assert_apart(&format!("etcd {ETCD}, one member"), &world).await
}

/// Leases and writes are passed on to the leader there, by other code.
#[tokio::test]
async fn tenants_are_apart_on_a_follower() -> Result<()> {
    let cluster = Cluster::start(ETCD, 3).await?;
    let follower = cluster.follower().await?;
    let world = Box::pin(World::new(&cluster, &follower)).await?;
    assert_apart(&format!("etcd {ETCD}, follower of three"), &world).await
}

/// The floors themselves, one per release line. Each is one more build of etcd, so by hand:
/// `cargo test -p e2e --test etcd_isolation -- --ignored`.
#[tokio::test]
#[ignore = "builds three more versions of etcd"]
async fn tenants_are_apart_on_every_floor() -> Result<()> {
    for floor in stoker_etcd::version::FLOORS {
        let cluster = Cluster::start(&format!("v{floor}"), 1).await?;
        let world = Box::pin(World::new(&cluster, &cluster.addresses()[0])).await?;
        assert_apart(&format!("etcd v{floor}"), &world).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_suite_finds_the_holes_of_a_version_below_the_floor() -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::start(ETCD_BELOW_FLOOR, 1).await?;
    let world = Box::pin(World::new(&cluster, &cluster.addresses()[0])).await?;
    let before = world.evidence().await?;
    let verdicts = run_all(&world).await?;
    let bypasses = print_table(&format!("etcd {ETCD_BELOW_FLOOR}"), begun, &verdicts);
    assert!(
        bypasses >= 3,
        "{bypasses} bypasses: the suite no longer sees known holes"
    );
    // The four known holes, each by itself.
    for (rpc, name) in [
        ("Txn", "get, nested 1 deep"),
        ("Txn", "put to write-only key, previous value"),
        ("Maintenance", "raise the alarm of a full disk"),
        ("Compact", "everything, also the history of others"),
        ("Watch", "single-key reader, from that key on"),
    ] {
        let verdict = verdicts
            .iter()
            .find(|one| (one.rpc, one.name.as_str()) == (rpc, name));
        let verdict = verdict.expect("a case of that name");
        assert!(verdict.is_bypass(), "{verdict:?}");
    }
    let after = world.evidence().await;
    assert!(
        after.is_err() || after.is_ok_and(|after| after != before),
        "nothing was changed"
    );
    Ok(())
}

#[tokio::test]
async fn only_the_own_certificate_is_the_tenant() -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::start(ETCD, 1).await?;
    let world = Box::pin(World::new(&cluster, &cluster.addresses()[0])).await?;
    let before = world.evidence().await?;
    let mut outcomes = Box::pin(identity::with_certificates(&cluster, &world)).await?;
    outcomes.extend(identity::with_other_means(&cluster, &world).await?);
    println!("\nidentity");
    for (name, outcome) in &outcomes {
        println!("{name:<62} {outcome:?}");
    }
    let served: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Served)
        .collect();
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!(
        "identity: {} cases, {} served, {minutes:.2} minutes\n",
        outcomes.len(),
        served.len()
    );
    assert!(served.is_empty(), "{served:#?}");
    // The server was there all the time, and the own certificate works.
    let own = world.tenant.clone().get(world.own("key"), None).await?;
    assert_eq!(own.count(), 1);
    pretty_eq(&before, &world.evidence().await?);
    Ok(())
}

/// A table of only green rows proves nothing if a row cannot be anything else.
#[test]
fn a_verdict_can_be_bad() {
    let verdict = |expect, got| Verdict {
        rpc: "",
        name: String::new(),
        expect,
        got,
    };
    assert!(verdict(Expect::Denied, Got::Allowed).is_bypass());
    assert!(!verdict(Expect::Denied, Got::Other(String::new())).is_as_expected());
    assert!(!verdict(Expect::Allowed, Got::Denied).is_as_expected());
    assert!(verdict(Expect::Denied, Got::Denied).is_as_expected());
    let wrong = etcd_client::Error::GRpcStatus(tonic::Status::invalid_argument("etcdserver: x"));
    assert!(matches!(case::judge(Err(wrong)), Got::Other(_)));
}
