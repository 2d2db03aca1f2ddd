//! The listener for a node's pods as a part of the host's own agent, and as a pod where there is none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use stoker_api::labels::{LISTENER, OF_HOST};
use stoker_lab::host::Host;
use tokio::time::sleep;

use crate::front::{Front, LISTENER_ADDRESS};
use crate::tokens;
use crate::units::{AGENT, next, process};
use crate::world::{World, eventually};

/// The add-on's pods.
const ADD_ON: &str = "k8s-app=stoker-node-listener";
const SOON: Duration = Duration::from_mins(1);
/// For so many seconds, one after the other.
const ASKS: &str = "12";
/// How long the agent may be away: systemd starts it again two seconds after it has ended.
const AWAY: Duration = Duration::from_secs(20);

/// The agent of a machine that has joined by a token is the listener, and no pod is. Replaced by `systemctl reload` under a client that
/// goes on and others that come, nobody is refused or cut; killed while its predecessor still lives, it is back.
pub(crate) async fn the_hosts_agent_is_the_listener_and_is_replaced_without_a_gap(
    world: &World,
) -> Result<()> {
    let front = Front::joined(world).await?;
    let worker = front.worker()?;
    ensure!(label(&front, &worker).await?.as_deref() == Some(OF_HOST));
    ensure!(
        pods(&front, &worker).await? == 0,
        "the add-on has a pod there too"
    );
    let before = process(&worker, AGENT).await?;
    let failed = front.failures_of_client().await?;
    let (asked, replaced) = tokio::join!(ask(&front, &worker), replace(&worker, &before));
    let (between, after) = replaced?;
    let (asked, lost) = asked?;
    let failed = front.failures_of_client().await? - failed;
    println!("{lost} of {asked} questions lost, {failed} of a pod");
    ensure!(
        asked > 5 && lost == 0 && failed == 0,
        "somebody was not served"
    );
    // It carries the pod's connection, which was not cut, whatever became of its successor, who had next to nothing to carry.
    runs(&worker, &before).await?;
    front.client_is_served().await?;

    let killed = Instant::now();
    worker.run(["kill", "-KILL", &after]).await?;
    eventually(AWAY, "systemd starts it again", async || {
        let now = process(&worker, AGENT).await?;
        ensure!(
            ![&before, &between, &after].contains(&&now),
            "it is {now} of before"
        );
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
    eventually(SOON, "the add-on has a pod there", async || {
        ensure!(pods(front, worker).await? == 1);
        Ok(())
    })
    .await?;
    ensure!(
        label(front, worker).await?.is_none(),
        "the Node says otherwise"
    );
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

/// The add-on's pods on that machine, those that end too.
async fn pods(front: &Front<'_>, worker: &Host) -> Result<usize> {
    let pods: Api<Pod> = Api::namespaced(front.tenant.client.clone(), "kube-system");
    let ours = ListParams::default()
        .labels(ADD_ON)
        .fields(&format!("spec.nodeName={}", worker.name()));
    Ok(pods.list(&ours).await?.items.len())
}

/// How many questions were asked through the listener, each by a connection of its own, and how many of them were not answered.
async fn ask(front: &Front<'_>, worker: &Host) -> Result<(u32, u32)> {
    let kubeconfig = front.world.lab.paths().kubeconfig(&front.tenant.name);
    let script = format!(
        "end=$(($(date +%s) + {ASKS})); all=0; lost=0
         while [ $(date +%s) -lt $end ]; do
           all=$((all + 1))
           kubectl --kubeconfig {} --server https://{LISTENER_ADDRESS}:6443 get --raw /livez >/dev/null || lost=$((lost + 1))
         done; echo $all $lost",
        kubeconfig.display()
    );
    let said = worker.run(["bash", "-c", &script]).await?;
    let counts = said.trim().split_once(' ').context("two counts")?;
    Ok((counts.0.parse()?, counts.1.parse()?))
}

/// Two processes that have followed each other.
async fn replace(worker: &Host, before: &str) -> Result<(String, String)> {
    sleep(Duration::from_secs(3)).await;
    let between = reload(worker, before).await?;
    sleep(Duration::from_secs(1)).await;
    let after = reload(worker, &between).await?;
    Ok((between, after))
}

async fn reload(worker: &Host, before: &str) -> Result<String> {
    let begun = Instant::now();
    worker.run(["systemctl", "reload", AGENT]).await?;
    let after = next(worker, AGENT, before).await?;
    println!("replaced after {:.1?}", begun.elapsed());
    Ok(after)
}

async fn runs(worker: &Host, process: &str) -> Result<()> {
    let process = format!("/proc/{process}");
    worker.run(["test", "-d", &process]).await.map(drop)
}
