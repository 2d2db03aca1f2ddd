//! Tenants that sleep, one of them with a node that goes on dialling, and are woken by kubectl.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::{join_all, try_join};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stoker_api::v1alpha1::{HibernationReason, HibernationState, HibernationStatus};

use crate::front::{Front, TENANT, metric};
use crate::front_kept::{GRACE, Kept};
use crate::pods::restarts;
use crate::world::{BIRTH, World, eventually};

/// A tenant that sleeps and wakes all the time; its machine, should it have one, is behind NAT.
pub(crate) const OTHER: &str = "other";
const NAPS: usize = 2;
/// People who come at the same time.
const CROWD: usize = 20;

/// For longer than a node may be silent: what the node dials wakes nobody, its pods and Services stay, and it is the same node
/// when somebody asks for the tenant. Meanwhile another one sleeps and wakes many times.
pub(crate) async fn a_tenant_sleeps_whatever_its_node_dials_and_wakes_by_the_first_request(
    world: &World,
) -> Result<()> {
    let front = Front::joined(world).await?;
    let (mut woken, ()) = Box::pin(try_join(naps(world), sleeps(&front))).await?;
    let took = asks(world, TENANT).await?;
    Kept::woken();
    is_awake(world, TENANT).await?;
    println!(
        "asleep for more than {GRACE:?}, then woken by `kubectl get namespaces` in {:.2} s",
        took.as_secs_f64()
    );
    woken.push(took);
    woken.sort();
    println!(
        "first `kubectl get namespaces` of {} sleeping tenants: p50 {:.2} s, longest {:.2} s",
        woken.len(),
        woken[woken.len() / 2].as_secs_f64(),
        woken[woken.len() - 1].as_secs_f64()
    );
    front.client_is_served().await?;
    // Whether the node is judged is seen by the next scenario too, which begins before the grace is over.
    front.noticed_nothing().await
}

async fn sleeps(front: &Front<'_>) -> Result<()> {
    let world = front.world;
    let services: Api<Service> = Api::namespaced(front.tenant.client.clone(), "default");
    let service = services.get("echo").await?.spec.unwrap_or_default();
    let service = service.cluster_ip.context("no cluster IP")?;
    let container = front.container_of_client().await?;
    answers(front, &service, &container).await?;
    let unready = "stoker_gateway_refused_total{reason=\"NotReady\"}";
    let dialled = metric(world, unready).await?;
    sleep(world, TENANT).await?;
    let begun = Instant::now();
    let (asleep, deployed) = (
        hibernation(world, TENANT).await?,
        deployed(world, TENANT).await?,
    );
    ensure!(asleep.state == HibernationState::Asleep, "{asleep:?}");
    while begun.elapsed() < GRACE + Duration::from_secs(5) {
        answers(front, &service, &container).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let now = hibernation(world, TENANT).await?;
    ensure!(now == asleep, "it was {asleep:?}, is {now:?}");
    ensure!(
        self::deployed(world, TENANT).await? == deployed,
        "its Deployment was changed"
    );
    let dialled = metric(world, unready).await? - dialled;
    println!("{dialled} connections of the node were held and refused, and woke nobody");
    ensure!(dialled > 0, "the node dialled nobody: this proves nothing");
    Ok(())
}

/// A Service of the tenant takes connections of a pod on its node, where kube-proxy leads them to another. Asked once more where
/// it does not: the machine does much else in these seconds.
async fn answers(front: &Front<'_>, service: &str, container: &str) -> Result<()> {
    if connects(front, service, container).await.is_ok() {
        return Ok(());
    }
    let said = connects(front, service, container).await;
    said.context("a Service of the tenant does not answer")
}

async fn connects(front: &Front<'_>, service: &str, container: &str) -> Result<()> {
    let (name, target) = (format!("{:?}", Instant::now()), format!("{service}:80"));
    let name: String = name.chars().filter(char::is_ascii_digit).collect();
    let exec = ["ctr", "--namespace", "k8s.io", "tasks", "exec", "--exec-id"];
    let connect = [
        &name,
        container,
        "/agnhost",
        "connect",
        "--timeout=3s",
        &target,
    ];
    let connected = front.worker()?.run(exec.into_iter().chain(connect)).await;
    connected.map(drop)
}

/// How long the first request to another tenant took, each time; the last time many asked at once.
async fn naps(world: &World) -> Result<Vec<Duration>> {
    let tunnel = json!({ "addons": { "konnectivity": {} } });
    Front::of(world, OTHER, tunnel).await?;
    let mut took = Vec::new();
    for _ in 0..NAPS {
        sleep(world, OTHER).await?;
        took.push(asks(world, OTHER).await?);
    }
    sleep(world, OTHER).await?;
    let before = deployed(world, OTHER).await?;
    let told = metric(world, "stoker_gateway_wakes_total").await?;
    let begun = Instant::now();
    for asked in join_all((0..CROWD).map(|_| asks(world, OTHER))).await {
        asked.context("one of a crowd")?;
    }
    println!(
        "{CROWD} people at once served after {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    is_awake(world, OTHER).await?;
    let told = metric(world, "stoker_gateway_wakes_total").await? - told;
    // Each gateway tells it once.
    ensure!(
        (1..=2).contains(&told),
        "the operator was told {told} times"
    );
    let changes = deployed(world, OTHER).await? - before;
    ensure!(changes == 1, "the Deployment was changed {changes} times");
    let pods = world.pods(OTHER).await?;
    ensure!(
        pods.len() == 1 && restarts(&pods) == 0,
        "{} pods with {} restarts",
        pods.len(),
        restarts(&pods)
    );
    Ok(took)
}

/// Puts it to sleep by hand, until no pod of its control plane is left.
async fn sleep(world: &World, name: &str) -> Result<()> {
    // Later than the last waking, to the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let now = format!("{:.0}", Timestamp::now());
    let patch = Patch::Merge(json!({ "spec": { "hibernation": { "sleepAt": now } } }));
    let params = PatchParams::default();
    world.tenants(name).patch(name, &params, &patch).await?;
    eventually(BIRTH, "the tenant sleeps", async || {
        let pods = world.pods(name).await?.len();
        let state = hibernation(world, name).await?.state;
        ensure!(
            pods == 0 && state == HibernationState::Asleep,
            "{pods} pods, {state:?}"
        );
        Ok(())
    })
    .await
}

/// How long `kubectl get namespaces` takes with the tenant's kubeconfig, once.
async fn asks(world: &World, name: &str) -> Result<Duration> {
    let begun = Instant::now();
    let get = ["get", "namespaces", "-o", "name"];
    let said = world.lab.kubectl_with(name, &get).await?;
    ensure!(said.contains("namespace/default"), "it says {said}");
    Ok(begun.elapsed())
}

async fn is_awake(world: &World, name: &str) -> Result<()> {
    let found = hibernation(world, name).await?;
    ensure!(
        found.state == HibernationState::Awake && found.reason == HibernationReason::Connection,
        "{found:?}"
    );
    Ok(())
}

async fn hibernation(world: &World, name: &str) -> Result<HibernationStatus> {
    let found = world.status(name).await?.hibernation;
    found.context("nothing is said of sleep")
}

/// How often what is wanted of the control plane's pods was changed.
async fn deployed(world: &World, name: &str) -> Result<i64> {
    let deployments: Api<Deployment> = Api::namespaced(world.management.clone(), name);
    let generation = deployments.get(name).await?.metadata.generation;
    generation.context("a Deployment without a generation")
}
