//! The operator is killed, or hangs, while tenants are at many points of their birth and of their deletion.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_lab::management::HOST;
use stoker_lab::product::NAMESPACE;

use crate::deletion::{nothing_in, nothing_of};
use crate::pods::restarts;
use crate::world::{BIRTH, World, eventually};

/// How long before the kill each tenant's birth, or deletion, began.
const LEADS: [Duration; 4] = [
    Duration::from_secs(4),
    Duration::from_millis(700),
    Duration::from_millis(150),
    Duration::from_millis(30),
];
/// The lease's 15 s, a retry, and a busy machine.
const TAKEOVER: Duration = Duration::from_secs(45);

pub(crate) async fn a_killed_operator_is_replaced_and_every_birth_and_deletion_ends_right(
    world: &World,
) -> Result<()> {
    let names: Vec<_> = (0..LEADS.len())
        .map(|number| format!("victim-{number}"))
        .collect();
    let apply = async |name: &str| world.apply_tenant(name, json!({})).await;
    let killed = staggered(world, &names, "KILL", apply).await?;
    restarted(world, &killed).await?;
    let mut ids = BTreeSet::new();
    for name in &names {
        world.ready(name).await?;
        ids.insert(world.storage_id(name).await?);
        let sets: Api<ReplicaSet> = Api::namespaced(world.management.clone(), name);
        let sets = sets.list(&ListParams::default()).await?.items.len();
        ensure!(sets == 1, "{name}: {sets} ReplicaSets");
        let restarts = restarts(&world.pods(name).await?);
        ensure!(
            restarts == 0,
            "{name}: {restarts} containers were restarted"
        );
    }
    ensure!(
        ids.len() == names.len(),
        "two tenants share an identity: {ids:?}"
    );
    no_orphans(world).await?;

    let params = DeleteParams::default();
    let delete = async |name: &str| {
        world
            .tenants(name)
            .delete(name, &params)
            .await
            .context("deleting")
            .map(drop)
    };
    let stopped = staggered(world, &names, "STOP", delete).await?;
    taken_over(world, &stopped).await?;
    for name in &names {
        world.gone(name).await?;
        nothing_in(world, name).await?;
    }
    for id in &ids {
        nothing_of(world, id).await?;
    }
    no_orphans(world).await
}

/// The leader that got a signal.
struct Struck {
    pod: Pod,
    pid: String,
    at: Instant,
}

/// Starts `work` on each tenant at its lead, then sends the leader the signal.
async fn staggered(
    world: &World,
    names: &[String],
    signal: &str,
    work: impl AsyncFn(&str) -> Result<()>,
) -> Result<Struck> {
    let pod = settled_leader(world).await?;
    let pid = world.pid(&pod, "operator").await?;
    let begun = Instant::now();
    for (name, lead) in names.iter().zip(LEADS) {
        let start = LEADS[0].saturating_sub(lead);
        tokio::time::sleep(start.saturating_sub(begun.elapsed())).await;
        work(name).await?;
    }
    tokio::time::sleep(LEADS[0].saturating_sub(begun.elapsed())).await;
    world
        .host()?
        .run(["kill", &format!("-{signal}"), &pid])
        .await?;
    println!("{}: SIG{signal}", pod.name_any());
    Ok(Struck {
        pod,
        pid,
        at: Instant::now(),
    })
}

/// A killed process is started again in its pod and goes on.
async fn restarted(world: &World, killed: &Struck) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.management.clone(), NAMESPACE);
    let name = killed.pod.name_any();
    eventually(
        TAKEOVER,
        "the killed process was started again",
        async || {
            let pod = pods.get(&name).await?;
            let before = restarts(std::slice::from_ref(&killed.pod));
            ensure!(restarts(&[pod]) > before, "it was not");
            Ok(())
        },
    )
    .await?;
    println!(
        "{name} started again after {:.1} s",
        killed.at.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The other replica takes over from one that hangs, and the one that hung does not come back as leader.
async fn taken_over(world: &World, stopped: &Struck) -> Result<()> {
    let old = stopped.pod.name_any();
    let new = eventually(TAKEOVER, "the other replica leads", async || {
        let holder = holder(world).await?;
        ensure!(holder != old, "{holder} still leads");
        Ok(holder)
    })
    .await?;
    println!(
        "{new} leads after {:.1} s",
        stopped.at.elapsed().as_secs_f64()
    );
    // The kubelet may have killed it meanwhile, as its liveness probe has no answer.
    let _ = world.host()?.run(["kill", "-CONT", &stopped.pid]).await;
    settled_leader(world).await?;
    let holder = holder(world).await?;
    ensure!(holder == new, "{holder} leads again");
    Ok(())
}

/// The pod that leads, once both replicas run: a restarted one may be backing off.
async fn settled_leader(world: &World) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(world.management.clone(), NAMESPACE);
    let lab = &world.lab;
    lab.rolled_out(HOST, NAMESPACE, "deployment/stoker-operator")
        .await?;
    let holder = holder(world).await?;
    pods.get(&holder)
        .await
        .with_context(|| format!("the lease's holder is {holder}"))
}

async fn holder(world: &World) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(world.management.clone(), NAMESPACE);
    let lease = leases.get("stoker").await?;
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("nobody leads")
}

/// Every user of the pool is the identity of a tenant that exists.
async fn no_orphans(world: &World) -> Result<()> {
    let all: Api<stoker_api::v1alpha1::TenantControlPlane> = Api::all(world.management.clone());
    let living: BTreeSet<_> = all
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter_map(|tenant| Some(tenant.status?.storage?.setup.user))
        .collect();
    eventually(BIRTH, "no user of the pool is left over", async || {
        let users = world.etcdctl(&["user", "list"]).await?;
        let left: Vec<_> = users
            .lines()
            .filter(|user| *user != "root" && !living.contains(*user))
            .collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
    .await
}
