//! A tenant that sleeps, woken by `kubectl get namespaces` through the gateway, beside a hand-written Deployment that is
//! scaled from 0 to 1; and what a fleet that sleeps costs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use stoker_lab::command::cargo;
use stoker_lab::handwritten::Handwritten;
use stoker_lab::ports::free_port;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::figures::{Spread, Table, count};
use super::ground::{Ground, LIMIT};
use super::operator;
use super::tenant::Tenant;

const DOMAIN: &str = "clusters.bench.internal";
const POLL: Duration = Duration::from_millis(100);
/// Between falling asleep and waking, and before a fleet that sleeps is looked at.
const SETTLED: Duration = Duration::from_secs(10);
/// Tenants of a fleet that are awake at the same time.
const BATCH: usize = 4;

/// Rounds that alternate, and after them so many `sleepers`, looked at for so many `seconds`.
pub(super) async fn measure(
    ground: &Ground,
    rounds: usize,
    sleepers: usize,
    seconds: u64,
) -> Result<Vec<Table>> {
    ground.lab.give_base_domain(DOMAIN).await?;
    let gateway = Gateway::start(ground).await?;
    let by_hand = Handwritten::prepare(&ground.lab, "wake").await?;
    by_hand.birth(LIMIT).await?;
    let tenant = sleeper(ground, "wake").await?;
    let (mut floor, mut woken, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        scale(ground, by_hand.namespace(), 0).await?;
        sleep(ground, &tenant).await?;
        tokio::time::sleep(SETTLED).await;
        busy.push(ground.quiet().await?);
        let begun = Instant::now();
        scale(ground, by_hand.namespace(), 1).await?;
        by_hand.wait_ready(LIMIT).await?;
        let floor_took = begun.elapsed();
        scale(ground, by_hand.namespace(), 0).await?;
        tokio::time::sleep(SETTLED).await;
        busy.push(ground.quiet().await?);
        let took = gateway.asks(ground, &tenant).await?;
        ground.lab.steps().note(format!(
            "round {round}: scaled by hand {:.2} s, woken by kubectl {:.2} s",
            floor_took.as_secs_f64(),
            took.as_secs_f64()
        ));
        // The first one fills the machine's caches.
        if round > 0 {
            floor.push(floor_took);
            woken.push(took);
        }
    }
    tenant.remove().await?;
    by_hand.remove().await?;
    let title = format!(
        "Waking: median (min to max) of {rounds} rounds, CPUs busy with other things before each: {}",
        Spread::of(busy)?.text(2)
    );
    let tables = [
        waking(title, &floor, &woken)?,
        asleep(ground, sleepers, seconds).await?,
    ];
    Ok(tables.into())
}

fn waking(title: String, floor: &[Duration], woken: &[Duration]) -> Result<Table> {
    let mut table = Table::new(title, &["seconds", "by hand", "Stoker", "ratio", "goal"]);
    let hand = Spread::of_seconds(floor.iter().copied())?;
    let ours = Spread::of_seconds(woken.iter().copied())?;
    for (name, hand, ours) in [
        ("median", hand.median, ours.median),
        ("longest", hand.max, ours.max),
    ] {
        table.row(&[
            &format!("to /readyz by hand, to `kubectl get namespaces` done, {name}"),
            &format!("{hand:.2}"),
            &format!("{ours:.2}"),
            &format!("{:.2}", ours / hand),
            "≤ 1.2",
        ]);
    }
    Ok(table)
}

/// What so many of them cost, all together.
async fn asleep(ground: &Ground, sleepers: usize, seconds: u64) -> Result<Table> {
    tokio::time::sleep(SETTLED).await;
    let before = operator::metrics(&ground.client).await?;
    let mut fleet = Vec::new();
    while fleet.len() < sleepers {
        let numbers = fleet.len()..sleepers.min(fleet.len() + BATCH);
        let born = numbers.map(|number| async move {
            let tenant = sleeper(ground, &format!("sleep-{number}")).await?;
            sleep(ground, &tenant).await?;
            anyhow::Ok(tenant)
        });
        fleet.extend(futures::future::try_join_all(born).await?);
    }
    tokio::time::sleep(SETTLED).await;
    let begun = operator::metrics(&ground.client).await?;
    let revision = ground.pool_revision().await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = operator::metrics(&ground.client).await?;
    let writes = ground.pool_revision().await? - revision;
    let connections = ground.pool_connections().await?;
    for tenant in fleet {
        tenant.remove().await?;
    }
    let title = format!("{sleepers} tenants asleep for {seconds} s");
    let mut table = Table::new(title, &["what", "figure", "goal"]);
    let each = (begun.resident_bytes() - before.resident_bytes()) / 1024.0 / count(sleepers);
    let cpu = after.cpu_since(&begun);
    let requests = after.requests_since(&begun, "Management");
    for (what, figure, goal) in [
        ("writes into the pool", format!("{writes:.0}"), "0"),
        ("connections to the pool", connections.to_string(), ""),
        ("CPU of the operator, ms", format!("{cpu:.0}"), ""),
        (
            "resident memory of the operator per tenant, KiB",
            format!("{each:.0}"),
            "",
        ),
        (
            "requests to the management API",
            requests.text(1.0),
            "its lease",
        ),
    ] {
        table.row(&[what, &figure, goal]);
    }
    Ok(table)
}

/// A tenant that is awake and may sleep.
async fn sleeper(ground: &Ground, name: &str) -> Result<Tenant> {
    let tenant = Tenant::prepare(ground, name).await?;
    tenant.apply().await?;
    ground.ready(&tenant).await?;
    tenant.change(json!({ "hibernation": {} })).await?;
    Ok(tenant)
}

async fn sleep(ground: &Ground, tenant: &Tenant) -> Result<()> {
    // Later than the last waking, to the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let now = format!("{:.0}", Timestamp::now());
    tenant
        .change(json!({ "hibernation": { "sleepAt": now } }))
        .await?;
    no_pods(ground, tenant.namespace()).await
}

async fn scale(ground: &Ground, namespace: &str, replicas: u8) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(ground.client.clone(), namespace);
    let list = deployments.list(&ListParams::default()).await?;
    let deployment = list.items.first().context("no Deployment")?.name_any();
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let params = PatchParams::default();
    deployments
        .patch_scale(&deployment, &params, &patch)
        .await?;
    if replicas == 0 {
        no_pods(ground, namespace).await?;
    }
    Ok(())
}

async fn no_pods(ground: &Ground, namespace: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(ground.client.clone(), namespace);
    let begun = Instant::now();
    while !pods
        .list_metadata(&ListParams::default())
        .await?
        .items
        .is_empty()
    {
        ensure!(begun.elapsed() < LIMIT, "pods of {namespace} stay");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The gateway, as a process on this machine; ends with its value.
struct Gateway {
    port: u16,
    _process: Child,
    _directory: tempfile::TempDir,
}

impl Gateway {
    async fn start(ground: &Ground) -> Result<Self> {
        let built = cargo(["build", "--quiet", "--package", "stoker-gateway"]).status();
        ensure!(built?.success(), "stoker-gateway does not build");
        let program = std::env::current_exe()?.with_file_name("stoker-gateway");
        let directory = tempfile::tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        let text = std::fs::read_to_string(ground.lab.paths().kubeconfig("management"))?;
        let mut config: Value = serde_saphyr::from_str(&text)?;
        config["contexts"][0]["context"]["namespace"] = json!("stoker-system");
        std::fs::write(&kubeconfig, config.to_string())?;
        let port = free_port()?;
        let process = Command::new(program)
            .arg(format!("--base-domain={DOMAIN}"))
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg("--health-bind-address=127.0.0.1:0")
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the gateway")?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(begun.elapsed() < LIMIT, "the gateway does not listen");
            tokio::time::sleep(POLL).await;
        }
        Ok(Self {
            port,
            _process: process,
            _directory: directory,
        })
    }

    /// How long kubectl takes, with the tenant's kubeconfig as it is but for the address that the name leads to.
    async fn asks(&self, ground: &Ground, tenant: &Tenant) -> Result<Duration> {
        let mut config: Value = serde_saphyr::from_str(&tenant.kubeconfig().await?)?;
        let cluster = &mut config["clusters"][0]["cluster"];
        let name = cluster["tls-server-name"].as_str().unwrap_or_default();
        ensure!(name.starts_with("wake-"), "the kubeconfig names {name:?}");
        cluster["server"] = json!(format!("https://127.0.0.1:{}", self.port));
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), config.to_string())?;
        let lab = &ground.lab;
        let binaries = lab.upstream().kubernetes(lab.kubernetes()).await?;
        let begun = Instant::now();
        let output = Command::new(binaries.join("kubectl"))
            .arg("--kubeconfig")
            .arg(file.path())
            .args(["get", "namespaces"])
            .output()
            .await
            .context("starting kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl says {said}");
        Ok(begun.elapsed())
    }
}
