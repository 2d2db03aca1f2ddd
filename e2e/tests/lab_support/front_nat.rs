//! A machine that reaches everybody and that nobody reaches.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;
use stoker_lab::host::Host;

use crate::front::Front;
use crate::front_kept::ready_since;
use crate::front_listener;
use crate::front_sleep::OTHER;
use crate::world::World;

const WORKER: u8 = 2;
/// Two renewals of a node's lease, and a little more.
const STAYS: Duration = Duration::from_secs(25);

/// It joins by a token, stays Ready, and logs, exec and Services work on it, through the tunnel that it has opened.
pub(crate) async fn a_machine_behind_nat_joins_and_is_reached(world: &World) -> Result<()> {
    let tunnel = json!({ "addons": { "konnectivity": {} } });
    let front = Front::of(world, OTHER, tunnel).await?;
    let name = format!("worker-{WORKER}");
    let nodes: Api<Node> = Api::all(front.tenant.client.clone());
    if nodes.get_opt(&name).await?.is_none() {
        let worker = world.lab.add_worker(WORKER, world.lab.kubernetes()).await?;
        let worker = world.lab.put_behind_nat(&worker).await?;
        front.join(&worker).await?;
    }
    front_listener::is_a_pods(&front, &world.lab.host(&name)?).await?;
    let since = ready_since(&front.tenant.client, &name).await?;
    let begun = Instant::now();
    nobody_reaches(world, &world.lab.host(&name)?).await?;
    world.lab.start_workload(OTHER).await?;
    world.lab.check_workload(OTHER).await?;
    println!(
        "behind NAT: logs, exec, Service and DNS after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    tokio::time::sleep_until((begun + STAYS).into()).await;
    let now = ready_since(&front.tenant.client, &name).await?;
    ensure!(now == since, "Ready since {since}, now since {now}");
    Ok(())
}

/// Management has a way to the router, and there it ends: once the router lets in whoever comes, the node is reached.
async fn nobody_reaches(world: &World, worker: &Host) -> Result<()> {
    let (host, address) = (world.host()?, worker.address());
    let kubelet = format!("exec 3<>/dev/tcp/{address}/10250");
    let dial = ["timeout", "2", "bash", "-c", &kubelet];
    worker.run(dial).await.context("no kubelet listens")?;
    let way = format!("{address} via {}", world.lab.addresses().pool());
    let way = |what| ["ip", "route", what].into_iter().chain(way.split(' '));
    host.run(way("replace")).await?;
    let closed = host.run(dial).await;
    world.lab.open_router(worker).await?;
    let open = host.run(dial).await;
    world.lab.close_router(worker).await?;
    host.run(way("delete")).await?;
    ensure!(closed.is_err(), "management reaches the node by itself");
    open.context("it is not the router that keeps management from the node")
        .map(drop)
}
