//! The listener for a node's pods as a part of the host's own agent, and as a pod where there is none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use stoker_api::labels::{LISTENER, LISTENER_OF_HOST};
use stoker_lab::host::Host;
use tokio::time::sleep;

use crate::front::{Front, LISTENER_ADDRESS};
use crate::tokens;
use crate::units::{AGENT, process};
use crate::world::{World, eventually};

/// The add-on's.
const DAEMON_SET: &str = "stoker-node-listener";
const SOON: Duration = Duration::from_mins(1);
/// Connections are made for so long, one after the other.
const DIALS: &str = "10";
/// How long the agent may be away: systemd starts it again two seconds after it has ended.
const AWAY: Duration = Duration::from_secs(20);

/// The agent of a machine that has joined by a token is the listener, and no pod is. Replaced by `systemctl reload` under a client that
/// goes on and others that come, nobody is refused or cut; killed while its predecessor still lives, it is back.
pub(crate) async fn the_hosts_agent_is_the_listener_and_is_replaced_without_a_gap(
    world: &World,
) -> Result<()> {
    let front = Front::joined(world).await?;
    let worker = front.worker()?;
    ensure!(label(&front, &worker).await?.as_deref() == Some(LISTENER_OF_HOST));
    ensure!(pods(&front).await? == 0, "the add-on has a pod there too");
    let before = process(&worker, AGENT).await?;
    let failed = front.failures_of_client().await?;
    let (dialled, replaced) = tokio::join!(dial(&worker), replace(&worker, &before));
    let (after, took) = replaced?;
    let (dialled, refused) = dialled?;
    let failed = front.failures_of_client().await? - failed;
    println!(
        "replaced after {took:.1?}: {refused} of {dialled} connections refused, {failed} requests of a pod failed"
    );
    ensure!(
        dialled > 100 && refused == 0 && failed == 0,
        "somebody was refused"
    );
    // It carries the pod's connection, which was not cut.
    worker
        .run(["test", "-d", &format!("/proc/{before}")])
        .await?;
    front.client_is_served().await?;

    let killed = Instant::now();
    worker.run(["kill", "-KILL", &after]).await?;
    eventually(AWAY, "systemd starts it again", async || {
        let now = process(&worker, AGENT).await?;
        ensure!(now != after && now != before, "it is {now} of before");
        Ok(())
    })
    .await?;
    front.client_is_served().await?;
    println!(
        "a pod is served {:.1?} after the agent was killed",
        killed.elapsed()
    );
    front.noticed_nothing().await
}

/// Where no agent of the host listens, as on the machine behind NAT, the add-on's pod does.
pub(crate) async fn is_a_pods(front: &Front<'_>, worker: &Host) -> Result<()> {
    ensure!(
        label(front, worker).await?.is_none(),
        "the Node says otherwise"
    );
    ensure!(pods(front).await? == 1, "the add-on has no pod there");
    Ok(())
}

/// A machine that leaves has the listener's address no more.
pub(crate) async fn a_machine_that_leaves_keeps_nothing_of_the_listener(
    world: &World,
) -> Result<()> {
    let front = Front::joined(world).await?;
    let worker = front.worker()?;
    ensure!(has_address(&worker).await?, "it has no address to lose");
    let program = tokens::built().await?.display().to_string();
    worker
        .run([&*program, "leave", "--drain-seconds", "0"])
        .await?;
    ensure!(
        !has_address(&worker).await?,
        "it has {LISTENER_ADDRESS} still"
    );
    let label = label(&front, &worker).await?;
    ensure!(label.is_none(), "its Node says that it listens");
    Ok(())
}

async fn has_address(worker: &Host) -> Result<bool> {
    let said = worker
        .run(["ip", "-o", "address", "show", "dev", "lo"])
        .await?;
    Ok(said.contains(&format!(" {LISTENER_ADDRESS}/")))
}

async fn label(front: &Front<'_>, worker: &Host) -> Result<Option<String>> {
    let nodes: Api<Node> = Api::all(front.tenant.client.clone());
    Ok(nodes
        .get(worker.name())
        .await?
        .labels()
        .get(LISTENER)
        .cloned())
}

/// How many nodes the add-on has a pod for.
async fn pods(front: &Front<'_>) -> Result<i32> {
    let sets: Api<DaemonSet> = Api::namespaced(front.tenant.client.clone(), "kube-system");
    let status = sets.get(DAEMON_SET).await?.status;
    Ok(status
        .context("nobody has looked at it")?
        .desired_number_scheduled)
}

/// How many connections were made, and how many of them were refused.
async fn dial(worker: &Host) -> Result<(u32, u32)> {
    let script = format!(
        "end=$(($(date +%s) + {DIALS})); all=0; refused=0
         while [ $(date +%s) -lt $end ]; do
           all=$((all + 1)); (exec 3<>/dev/tcp/{LISTENER_ADDRESS}/6443) 2>/dev/null || refused=$((refused + 1))
         done; echo $all $refused"
    );
    let said = worker.run(["bash", "-c", &script]).await?;
    let counts = said.trim().split_once(' ').context("two counts")?;
    Ok((counts.0.parse()?, counts.1.parse()?))
}

/// Its next process, and how long that took to take over.
async fn replace(worker: &Host, before: &str) -> Result<(String, Duration)> {
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    worker.run(["systemctl", "reload", AGENT]).await?;
    let after = eventually(SOON, "its successor takes over", async || {
        let now = process(worker, AGENT).await?;
        ensure!(now != before, "it is {now} of before");
        Ok(now)
    })
    .await?;
    Ok((after, begun.elapsed()))
}
