//! What the tunnel costs: the same calls through it and, with the wall down, without it. Printed; nothing here fails but for what is
//! not there.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use stoker_lab::command::{program, run};
use stoker_lab::management::HOST;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::door::{Door, Stream, echoes};
use crate::far_server::PORT;
use crate::pods::pid_on;
use crate::walled::{FAR, PROGRAM, TENANT, Walled, memory, tenant, tunnel as spec_of_the_tunnel};
use crate::world::{World, eventually};

/// How much is measured, ways in turn.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Between the birth of a pod and its being measured: what it does at its start is not what a request takes.
    settles: Duration,
    requests: usize,
    mebibytes: usize,
    /// In each direction, each way and round; the middle one counts.
    copies: usize,
}

impl Effort {
    /// Enough for figures where the environment says so (`STOKER_ROUNDS`), else to see that everything of it works.
    fn asked() -> Result<Self> {
        Ok(match std::env::var("STOKER_ROUNDS") {
            Ok(rounds) => Self {
                rounds: rounds.parse()?,
                settles: Duration::from_secs(10),
                requests: 2000,
                mebibytes: 512,
                copies: 3,
            },
            Err(_) => Self {
                rounds: 1,
                settles: Duration::ZERO,
                requests: 200,
                mebibytes: 64,
                copies: 1,
            },
        })
    }
}

const STREAMS: usize = 1000;
/// Streams that are being opened at a time.
const OPENING: usize = 50;
const SOON: Duration = Duration::from_mins(1);

/// Of one way.
struct Figures {
    /// Of a small request, half of them and 99 %.
    requests: [Duration; 2],
    /// MiB/s from a pod, and to it.
    copies: [f64; 2],
}

pub(crate) async fn what_the_tunnel_costs(world: &World) -> Result<()> {
    let effort = Effort::asked()?;
    let walled = Walled::of(world).await?;
    // As it is, so that no agent is replaced.
    let tunnel = spec_of_the_tunnel(world).await?;
    replaced(&walled, tunnel.as_ref()).await?;
    let pod = walled.control_plane().await?.remove(0);
    crowd(&walled, &pod).await?;
    walled.lower().await?;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        for (way, tunnel, found) in [
            ("without it", None, &mut direct),
            ("through the tunnel", tunnel.as_ref(), &mut through),
        ] {
            replaced(&walled, tunnel).await?;
            tokio::time::sleep(effort.settles).await;
            let pod = walled.control_plane().await?.remove(0);
            let figures = figures(&walled, &walled.door(&pod).await?, effort).await?;
            figures.show(way);
            found.push(figures);
        }
    }
    // Of each round by itself: machines are slower in some minutes than in others.
    let rounds: Vec<_> = direct.iter().zip(&through).collect();
    let added = |at: usize| {
        let of = |found: &Figures| found.requests[at].as_secs_f64() * 1e3;
        median(&rounds, |(direct, through)| of(through) - of(direct))
    };
    let kept = |at: usize| {
        median(&rounds, |(direct, through)| {
            through.copies[at] / direct.copies[at] * 100.0
        })
    };
    println!(
        "medians of {}: the tunnel adds {:.2} ms (p50) and {:.2} ms (p99) to a small request; copies from a pod have {:.0} % of their throughput, to a pod {:.0} %",
        effort.rounds,
        added(0),
        added(1),
        kept(0),
        kept(1)
    );
    Ok(())
}

fn median<T>(all: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One replica, with the tunnel or without.
async fn replaced(walled: &Walled<'_>, tunnel: Option<&Value>) -> Result<()> {
    let world = walled.world;
    tenant(world, tunnel, 1).await?;
    let is = |pod: &Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
        arguments.any(|word| word.starts_with("--egress-selector-config-file"))
    };
    eventually(SOON * 2, "one pod, as wanted", async || {
        let pods = world.pods(TENANT).await?;
        ensure!(
            pods.len() == 1 && is(&pods[0]) == tunnel.is_some(),
            "{} pods",
            pods.len()
        );
        Ok(())
    })
    .await?;
    let deployment = format!("deployment/{TENANT}");
    world.lab.rolled_out(HOST, TENANT, &deployment).await?;
    if tunnel.is_some() {
        let agent = "daemonset/konnectivity-agent";
        world.lab.rolled_out(TENANT, "kube-system", agent).await?;
    }
    let logs = ["logs", FAR, "--tail=1"];
    eventually(SOON, "the node is reached", async || {
        walled.kubectl(&logs).await.map(drop)
    })
    .await
}

async fn figures(walled: &Walled<'_>, door: &Door, effort: Effort) -> Result<Figures> {
    let small = format!("/api/v1/nodes/{}/proxy/healthz", walled.worker.name());
    let mut took = Vec::new();
    for number in 0..effort.requests + 50 {
        let begun = Instant::now();
        door.get(&small).await?;
        if number >= 50 {
            took.push(begun.elapsed());
        }
    }
    let mut copies = [Vec::new(), Vec::new()];
    for _ in 0..effort.copies {
        for (direction, copies) in [Direction::FromPod, Direction::ToPod]
            .into_iter()
            .zip(&mut copies)
        {
            copies.push(copy(walled, direction, effort.mebibytes).await?);
        }
    }
    Ok(Figures {
        requests: percentiles(took),
        copies: copies.map(|copies| median(&copies, |copy| *copy)),
    })
}

fn percentiles(mut took: Vec<Duration>) -> [Duration; 2] {
    took.sort();
    [50, 99].map(|percent| took[(took.len() - 1) * percent / 100])
}

impl Figures {
    fn show(&self, way: &str) {
        let [half, most] = self.requests;
        println!("{way}: nodes/proxy/healthz p50 {half:.2?}, p99 {most:.2?}");
        let [from, to] = self.copies;
        println!("{way}: by kubectl exec from a pod {from:.0} MiB/s, to it {to:.0} MiB/s");
    }
}

async fn open(door: &Door) -> Result<Stream> {
    let path = format!("/api/v1/namespaces/default/pods/{FAR}:{PORT}/proxy/echo");
    let mut stream = door.upgraded(&path, "echo").await?;
    echoes(&mut stream, "hello\n").await?;
    Ok(stream)
}

/// CPU time that the processes of this machine have used, with their names, seconds.
fn spent() -> Result<BTreeMap<String, (String, f64)>> {
    let mut spent = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        // Not everything there is a process, and one that has ended has no line.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        spent.extend(spent_by(&stat));
    }
    Ok(spent)
}

/// Of a line of `/proc/PID/stat`: the process, its name, and its times in ticks of `USER_HZ`, utime and stime.
fn spent_by(stat: &str) -> Option<(String, (String, f64))> {
    let (process, rest) = stat.split_once(" (")?;
    let (name, fields) = rest.rsplit_once(") ")?;
    let times = fields.split(' ').skip(11).take(2);
    let ticks: f64 = times.flat_map(str::parse::<u32>).map(f64::from).sum();
    Some((process.to_owned(), (name.to_owned(), ticks / 100.0)))
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    FromPod,
    ToPod,
}

/// MiB/s between a pod and whoever copies; printed is who used more than a twentieth of the CPU time.
async fn copy(walled: &Walled<'_>, direction: Direction, mebibytes: usize) -> Result<f64> {
    let before = spent()?;
    let begun = Instant::now();
    match direction {
        Direction::FromPod => from_pod(walled, mebibytes).await?,
        Direction::ToPod => to_pod(walled, mebibytes).await?,
    }
    let took = begun.elapsed();
    let mut used = BTreeMap::<_, f64>::new();
    for (process, (name, seconds)) in spent()? {
        let before = before.get(&process).map_or(0.0, |(_, before)| *before);
        *used.entry(name).or_default() += seconds - before;
    }
    let all: f64 = used.values().sum();
    used.retain(|_, seconds| *seconds > all / 20.0);
    println!(
        "{direction:?} took {took:.2?}; CPU of what still runs {all:.1} s, of which {used:.2?}"
    );
    Ok(f64::from(u32::try_from(mebibytes)?) / took.as_secs_f64())
}

async fn from_pod(walled: &Walled<'_>, mebibytes: usize) -> Result<()> {
    let mut kubectl = walled
        .kubectl_command(&[
            "exec",
            FAR,
            "--",
            PROGRAM,
            "far",
            "zeros",
            &mebibytes.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = kubectl.stdout.take().context("no output")?;
    let (mut came, mut block) = (0, vec![0; 1 << 20]);
    loop {
        match out.read(&mut block).await? {
            0 => break,
            read => came += read,
        }
    }
    let ended = kubectl.wait().await?;
    ensure!(
        came == mebibytes << 20 && ended.success(),
        "{came} bytes came, {ended}"
    );
    Ok(())
}

async fn to_pod(walled: &Walled<'_>, mebibytes: usize) -> Result<()> {
    let mut kubectl = walled
        .kubectl_command(&["exec", "--stdin", FAR, "--", PROGRAM, "far", "count"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut into = kubectl.stdin.take().context("no input")?;
    let block = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        into.write_all(&block).await?;
    }
    drop(into);
    let counted = kubectl.wait_with_output().await?;
    let counted = String::from_utf8_lossy(&counted.stdout);
    ensure!(
        counted.trim() == (mebibytes << 20).to_string(),
        "{counted} bytes came"
    );
    Ok(())
}

/// Many streams at a time, each used; and what they cost both ends.
async fn crowd(walled: &Walled<'_>, pod: &Pod) -> Result<()> {
    let own = std::process::id().to_string();
    run(&mut program("prlimit", ["--nofile=8192:", "--pid", &own])).await?;
    let host = walled.world.host()?;
    let agent = walled.agent().await?;
    let agent = pid_on(&walled.worker, &agent, "konnectivity-agent").await?;
    let warden = pid_on(&host, pod, "stoker-warden").await?;
    let look = async || {
        let (warden, agent) = (
            memory(&host, &warden).await?,
            memory(&walled.worker, &agent).await?,
        );
        Ok::<_, anyhow::Error>(format!(
            "warden PSS {} KiB RSS {} KiB, agent PSS {} KiB RSS {} KiB",
            warden.0, warden.1, agent.0, agent.1
        ))
    };
    println!("before: {}", look().await?);
    let door = walled.door(pod).await?;
    // Only here: without the tunnel nobody of management reaches a pod.
    let mut opened = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        open(&door).await?;
        opened.push(begun.elapsed());
    }
    let [half, most] = percentiles(opened);
    println!("a new stream and a line back p50 {half:.2?}, p99 {most:.2?}");
    let begun = Instant::now();
    let mut streams = Vec::new();
    while streams.len() < STREAMS {
        streams.extend(try_join_all((0..OPENING).map(|_| open(&door))).await?);
    }
    println!(
        "{} streams open after {:.1?}",
        streams.len(),
        begun.elapsed()
    );
    println!("with them: {}", look().await?);
    let begun = Instant::now();
    try_join_all(streams.iter_mut().map(|stream| echoes(stream, "again\n"))).await?;
    println!("a line through each and back: {:.2?}", begun.elapsed());
    drop(streams);
    Ok(())
}
