//! Gateways that are killed, deleted and replaced while people ask and watches are open.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_lab::management::HOST;
use stoker_lab::product::NAMESPACE;

use crate::front::{DRAIN, Front, GATEWAY, address, gateways};
use crate::front_kept::Kept;
use crate::front_load::{Load, Stream};
use crate::pods::restarts;
use crate::world::World;
use crate::world::eventually;

const STREAMS: usize = 12;
const SOON: Duration = Duration::from_mins(1);

/// Who asks once more is always answered; watches through another gateway live on; those through one that is to end live on
/// until it must.
pub(crate) async fn gateways_are_killed_and_replaced_under_load(world: &World) -> Result<()> {
    let front = Front::joined(world).await?;
    let unanswered = front.failures_of_client().await?;
    let load = Load::start(&front);
    let both = async {
        one_is_killed(&front).await?;
        all_are_replaced(&front).await
    };
    let done = both.await;
    let counts = load.end().await?;
    println!(
        "{} questions by new connections: {} asked once more, {} lost; slowest first answer {:.0?}",
        counts.asked,
        counts.retried.len(),
        counts.lost.len(),
        counts.slowest
    );
    done?;
    ensure!(counts.lost.is_empty(), "lost: {:?}", counts.lost);
    front.client_is_served().await?;
    let unanswered = front.failures_of_client().await? - unanswered;
    println!("of the pod's client, which asks every second, {unanswered} were not answered");
    Kept::outlives_the_grace().await;
    front.noticed_nothing().await
}

/// The process of one, without a word.
async fn one_is_killed(front: &Front<'_>) -> Result<()> {
    let world = front.world;
    let victim = gateways(world).await?.into_iter().next();
    let victim = victim.context("no gateway")?;
    let streams = Stream::open(front, STREAMS).await?;
    let of_victim = address(&victim)?;
    let (cut, others): (Vec<_>, Vec<_>) = streams
        .iter()
        .partition(|stream| stream.gateway == of_victim);
    ensure!(
        !cut.is_empty() && !others.is_empty(),
        "all {STREAMS} watches are at one gateway"
    );
    let process = world.pid(&victim, "gateway").await?;
    world.host()?.run(["kill", "-9", &process]).await?;
    eventually(SOON, "its watches are cut", async || {
        ensure!(cut.iter().all(|stream| stream.ended().is_some()), "not all");
        Ok(())
    })
    .await?;
    is_heard_of(front, "after-the-kill", &others).await?;
    println!(
        "one of two gateways killed: {} watches cut with it, 0 of {} others",
        cut.len(),
        others.len()
    );
    eventually(SOON, "it is started again", async || {
        let pods = gateways(world).await?;
        ensure!(
            restarts(&pods) > restarts(std::slice::from_ref(&victim)),
            "not yet"
        );
        Ok(())
    })
    .await?;
    all_ready(world).await
}

/// One is deleted, then all are replaced as by an upgrade.
async fn all_are_replaced(front: &Front<'_>) -> Result<()> {
    let world = front.world;
    let before = gateways(world).await?;
    let streams = Stream::open(front, STREAMS).await?;
    let begun = Instant::now();
    let pods: Api<Pod> = Api::namespaced(world.management.clone(), NAMESPACE);
    let first = before.first().context("no gateway")?.name_any();
    pods.delete(&first, &DeleteParams::default()).await?;
    let restart = [
        "-n",
        NAMESPACE,
        "rollout",
        "restart",
        "deployment/stoker-gateway",
    ];
    world.lab.kubectl(&restart).await?;
    eventually(SOON, "both are others", async || {
        let now = gateways(world).await?;
        let known = |pod: &Pod| before.iter().any(|old| old.uid() == pod.uid());
        ensure!(now.len() == 2 && !now.iter().any(known), "not yet");
        Ok(())
    })
    .await?;
    all_ready(world).await?;
    let replaced = begun.elapsed();
    // The old ones take nobody any more.
    let (delay, drain) = DRAIN;
    tokio::time::sleep(Duration::from_secs(delay + 1)).await;
    let known = |stream: &Stream| {
        before
            .iter()
            .any(|pod| address(pod).ok() == Some(&stream.gateway))
    };
    let fresh = Stream::open(front, 4).await?;
    ensure!(!fresh.iter().any(known), "an old gateway takes connections");
    let through_old: Vec<_> = streams.iter().filter(|stream| known(stream)).collect();
    ensure!(through_old.len() == STREAMS, "some were led elsewhere");
    is_heard_of(front, "after-the-upgrade", &through_old).await?;
    let limit = Duration::from_secs(delay + drain);
    ensure!(
        begun.elapsed() < limit,
        "after {:?} this says nothing of the limit of {limit:?}",
        begun.elapsed()
    );
    println!(
        "both gateways replaced in {:.1} s: 0 of {STREAMS} watches cut",
        replaced.as_secs_f64()
    );

    // Open ones live on to the limit, and then nothing keeps the old gateways.
    let last = eventually(limit + SOON, "the old gateways end", async || {
        let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={GATEWAY}"));
        let left = pods.list(&ours).await?.items.len();
        ensure!(left == 2, "{left} are there");
        let ended = streams.iter().map(Stream::ended);
        let ended: Option<Vec<Instant>> = ended.collect();
        ended.context("a watch is open")
    })
    .await?;
    let lived = last.iter().map(|ended| ended.duration_since(begun));
    let shortest = lived.min().unwrap_or_default();
    println!(
        "watches through the old gateways lived on for {:.1} s at least, of {limit:?} that they may",
        shortest.as_secs_f64()
    );
    ensure!(
        shortest + Duration::from_secs(1) > limit,
        "one was cut after {shortest:?}"
    );
    ensure!(
        fresh.iter().all(|stream| stream.ended().is_none()),
        "a watch through a new gateway was cut"
    );
    Ok(())
}

/// What is made now arrives at all of these watches.
async fn is_heard_of(front: &Front<'_>, name: &str, streams: &[&Stream]) -> Result<()> {
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "generateName": name } }))?;
    let lab = &front.world.lab;
    let made = eventually(SOON, "something is made in the tenant", async || {
        let client = lab.tenant_client(&front.tenant.kubeconfig).await?;
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        Ok(maps.create(&PostParams::default(), &map).await?)
    })
    .await?;
    let made = made.name_any();
    eventually(SOON, "the open watches hear of it", async || {
        let deaf = streams.iter().filter(|stream| !stream.has_heard(&made));
        let (deaf, cut) = deaf.fold((0, 0), |(deaf, cut), stream| {
            (deaf + 1, cut + usize::from(stream.ended().is_some()))
        });
        ensure!(
            deaf == 0,
            "{deaf} of {} do not, {cut} were cut",
            streams.len()
        );
        Ok(())
    })
    .await
}

async fn all_ready(world: &World) -> Result<()> {
    world
        .lab
        .rolled_out(HOST, NAMESPACE, "deployment/stoker-gateway")
        .await
}
