//! Wardens and agents are killed while people use what is behind the wall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;
use stoker_lab::management::HOST;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::door::{Door, Stream, echoes};
use crate::far_server::PORT;
use crate::pods::pid_on;
use crate::walled::{FAR, PROGRAM, TENANT, Walled, tenant, tunnel as spec_of_the_tunnel};
use crate::world::{BIRTH, World, eventually};

/// Far more than it takes; figures are printed.
const BACK: Duration = Duration::from_secs(20);
/// How long a stream is watched that must not be cut.
const WATCHED: Duration = Duration::from_secs(2);
/// A rollout of one pod.
const SOON: Duration = Duration::from_mins(1);
/// Calls at a time, all the time.
const LOAD: usize = 2;

pub(crate) async fn killed_wardens_and_agents_cost_their_own_streams_and_no_later_call(
    world: &World,
) -> Result<()> {
    let walled = Walled::of(world).await?;
    let (one, two) = two_replicas(&walled).await?;
    let (door, other) = (walled.door(&one).await?, walled.door(&two).await?);
    let load = Load::begin(&walled);
    let mut outages = Vec::new();

    let (mut cut, mut kept) = (echo(&door).await?, echo(&other).await?);
    let begun = Instant::now();
    let warden = world.pid(&one, "stoker-warden").await?;
    world.host()?.run(["kill", "-KILL", &warden]).await?;
    let watch = async {
        while begun.elapsed() < WATCHED {
            echoes(&mut kept, "kept\n").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    let watched = timeout(BACK, watch).await;
    watched.context("the other replica's stream hangs")??;
    is_cut(&mut cut).await?;
    outages.push(back("a killed warden", begun, &[&door, &other]).await?);
    echoes(&mut kept, "kept\n")
        .await
        .context("the other replica's stream")?;

    let mut cut = echo(&door).await?;
    let begun = Instant::now();
    let agent = walled.agent().await?;
    let pid = pid_on(&walled.worker, &agent, "konnectivity-agent").await?;
    walled.worker.run(["kill", "-KILL", &pid]).await?;
    is_cut(&mut cut).await?;
    is_cut(&mut kept).await?;
    outages.push(back("a killed agent", begun, &[&door, &other]).await?);

    let begun = Instant::now();
    let delete = ["-n", "kube-system", "delete", "pod", &agent.name_any()];
    walled.kubectl(&[&delete[..], &["--now"]].concat()).await?;
    outages.push(back("a deleted agent", begun, &[&door, &other]).await?);
    load.end(&outages).await
}

/// Another version of the agents comes, in the place of one through which streams go.
pub(crate) async fn an_upgrade_of_agents_cuts_no_stream_and_costs_no_call(
    world: &World,
) -> Result<()> {
    let walled = Walled::of(world).await?;
    let door = walled
        .door(&walled.control_plane().await?.remove(0))
        .await?;
    let load = Load::begin(&walled);
    let mut kept = echo(&door).await?;
    let begun = Instant::now();
    let before = walled.agent().await?.uid();
    let mut tunnel = json!({ "agent": { "extraArgs": ["--deny=192.0.2.0/24"] } });
    // Once more, where it was upgraded already.
    let spec = spec_of_the_tunnel(world).await?.unwrap_or_default();
    let arguments = spec["agent"]["extraArgs"].as_array();
    if arguments.is_some_and(|arguments| !arguments.is_empty()) {
        tunnel = json!({});
    }
    let replicas = u8::try_from(walled.control_plane().await?.len())?;
    tenant(world, Some(&tunnel), replicas).await?;
    eventually(SOON, "the agent before is told to end", async || {
        let agents = walled.agents().await?;
        let ends = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let ended = agents.iter().find(|pod| pod.uid() == before);
        ensure!(ended.is_none_or(ends), "it goes on");
        Ok(())
    })
    .await?;
    println!(
        "another agent takes the place after {:.1?}",
        begun.elapsed()
    );
    echoes(&mut kept, "kept\n")
        .await
        .context("a stream of the agent before")?;
    load.end(&[]).await
}

/// A second replica is as good as the first a moment after it runs.
async fn two_replicas(walled: &Walled<'_>) -> Result<(Pod, Pod)> {
    let world = walled.world;
    let first = walled.control_plane().await?.remove(0);
    tenant(world, Some(&json!({})), 2).await?;
    let two = async || {
        let pods = walled.control_plane().await?;
        ensure!(pods.len() == 2, "{} replicas", pods.len());
        Ok(())
    };
    eventually(BIRTH, "a second replica", two).await?;
    let deployment = format!("deployment/{TENANT}");
    world.lab.rolled_out(HOST, TENANT, &deployment).await?;
    let ready = Instant::now();
    let mut pods = walled.control_plane().await?;
    pods.retain(|pod| pod.uid() != first.uid());
    let second = pods.pop().context("there is no second replica")?;
    back("a second replica", ready, &[&walled.door(&second).await?]).await?;
    Ok((first, second))
}

async fn echo(door: &Door) -> Result<Stream> {
    let path = format!("/api/v1/namespaces/default/pods/{FAR}:{PORT}/proxy/echo");
    let mut stream = door.upgraded(&path, "echo").await?;
    echoes(&mut stream, "hello\n").await?;
    Ok(stream)
}

/// Nobody is left waiting at a stream whose way is gone.
async fn is_cut(stream: &mut Stream) -> Result<()> {
    let echo = timeout(Duration::from_secs(10), echoes(stream, "cut\n")).await;
    let echo = echo.context("a stream without a way hangs")?;
    ensure!(echo.is_err(), "a stream outlived its way");
    Ok(())
}

/// From when until when calls might fail.
struct Outage(Instant, Instant);

/// Waits until streams go through all of these again.
async fn back(what: &str, begun: Instant, doors: &[&Door]) -> Result<Outage> {
    for door in doors {
        eventually(BACK, &format!("{what}: streams again"), async || {
            let attempt = timeout(BACK, echo(door)).await;
            attempt.context("no answer")?.map(drop)
        })
        .await?;
    }
    println!("{what}: streams go through {:.2?} later", begun.elapsed());
    Ok(Outage(begun, Instant::now()))
}

/// People who run commands in the pod, one after the other.
struct Load {
    ended: Arc<AtomicBool>,
    people: Vec<JoinHandle<Vec<Call>>>,
}

struct Call {
    begun: Instant,
    ended: Instant,
    failed: Option<String>,
}

impl Load {
    fn begin(walled: &Walled<'_>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let person = |_| {
            let ended = ended.clone();
            let exec = ["exec", FAR, "--", PROGRAM, "far", "zeros", "1"];
            let mut commands = std::iter::repeat_with(|| walled.kubectl_command(&exec));
            let mut commands: Vec<_> = commands.by_ref().take(500).collect();
            tokio::spawn(async move {
                let mut calls = Vec::new();
                while let Some(mut command) = commands.pop()
                    && !ended.load(Ordering::Relaxed)
                {
                    let begun = Instant::now();
                    let failed = match command.output().await {
                        Ok(output) if output.status.success() && output.stdout.len() == 1 << 20 => {
                            None
                        }
                        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
                        Err(error) => Some(error.to_string()),
                    };
                    let ended = Instant::now();
                    calls.push(Call {
                        begun,
                        ended,
                        failed,
                    });
                }
                calls
            })
        };
        let people = (0..LOAD).map(person).collect();
        Self { ended, people }
    }

    /// No call failed that neither began nor ran during an outage.
    async fn end(self, outages: &[Outage]) -> Result<()> {
        // Some after the last outage.
        tokio::time::sleep(WATCHED).await;
        self.ended.store(true, Ordering::Relaxed);
        let (mut all, mut within) = (0, 0);
        for person in self.people {
            for call in person.await? {
                all += 1;
                let Some(failed) = call.failed else { continue };
                let touched = |outage: &Outage| call.begun < outage.1 && call.ended > outage.0;
                ensure!(
                    outages.iter().any(touched),
                    "a call failed at any time: {failed}"
                );
                within += 1;
                println!("    during an outage: {}", failed.trim());
            }
        }
        println!(
            "{all} kubectl exec meanwhile, of which {within} failed during an outage, none else"
        );
        Ok(())
    }
}
