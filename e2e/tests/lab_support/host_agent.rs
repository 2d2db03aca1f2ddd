//! A machine whose own agent keeps its tunnel: a unit of systemd, in the place of the add-on's pod.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_api::v1alpha1::DEFAULT_TUNNEL_PORT;
use tokio::time::sleep;

use crate::tokens;
use crate::units::{AGENT, kill, process};
use crate::walled::{TENANT, Walled, counter, dials, raise, tenant};
use crate::world::{World, eventually};

const WORKER: u8 = 2;
const NAME: &str = "worker-2";
const TOKEN: &str = "host-agent";
/// It is replaced in that time.
const REPLACED: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_mins(1);

/// Its API server reaches it by the agent that `join` has left, and by nothing else; while that is replaced, again when it was killed, and
/// until it leaves.
pub(crate) async fn a_machine_that_joins_is_reached_by_its_own_agent(world: &World) -> Result<()> {
    let walled = Walled::of(world).await?;
    // Agents with flags of their own, as the upgrade has left them, are pods alone.
    let replicas = u8::try_from(walled.control_plane().await?.len())?;
    tenant(world, Some(&json!({})), replicas).await?;
    let asks = [
        "-n",
        "kube-public",
        "get",
        "configmap",
        "cluster-info",
        "-o",
        "yaml",
    ];
    eventually(SOON, "the tenant asks hosts' agents", async || {
        let said = walled.kubectl(&asks).await?;
        ensure!(said.contains("tunnel"), "it says {said}");
        Ok(())
    })
    .await?;
    let lab = &world.lab;
    let worker = lab
        .add_worker_with_systemd(WORKER, lab.kubernetes())
        .await?;
    raise(&worker).await?;
    let program = tokens::built().await?;
    let token = tokens::issue(world, TENANT, TOKEN, &json!({ "nodeNames": [NAME] })).await?;
    // Where it would dial anyway.
    let status = world.status(TENANT).await?;
    let endpoint = status.control_plane_endpoint.context("no endpoint")?;
    let (host, _) = endpoint.rsplit_once(':').context("an address and a port")?;
    let server = format!("{host}:{DEFAULT_TUNNEL_PORT}");
    let begun = Instant::now();
    lab.join_by_token(
        &worker,
        &lab.paths().kubeconfig(TENANT),
        &program,
        &[&token, "--tunnel", &server],
    )
    .await?;
    println!("joined and ready after {:.1?}", begun.elapsed());

    let kubelet = format!("{}/10250", worker.address());
    let dropped = counter(&worker, "wall", "dialled").await?;
    ensure!(
        !dials(world, "1", &kubelet).await? && counter(&worker, "wall", "dialled").await? > dropped,
        "it is reached without a tunnel"
    );
    let agents = walled.agents().await?;
    let on_it = |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.as_deref() == Some(NAME))
    };
    ensure!(!agents.iter().any(on_it), "the add-on's agent is there too");
    answers(&walled).await?;
    println!("reached {:.1?} after the join began", begun.elapsed());

    let before = process(&worker, AGENT).await?;
    let (asked, reloaded) = tokio::join!(healthz(&walled), async {
        sleep(REPLACED / 4).await;
        worker.run(["systemctl", "reload", AGENT]).await
    });
    reloaded?;
    ensure!(
        process(&worker, AGENT).await? != before,
        "it was not replaced"
    );
    println!("replaced under {} questions", asked?);

    let killed = Instant::now();
    kill(&worker, AGENT).await?;
    answers(&walled).await?;
    println!("reached {:.1?} after it was killed", killed.elapsed());

    let program = program.display().to_string();
    worker
        .run([&*program, "leave", "--drain-seconds", "20"])
        .await?;
    let running = worker.run(["sh", "-c", "pgrep -x stoker-node || true"]);
    ensure!(running.await?.trim().is_empty(), "its agent runs on");
    let nodes: Api<Node> = Api::all(walled.tenant.client.clone());
    nodes.delete(NAME, &DeleteParams::default()).await?;
    lab.remove_worker(WORKER).await?;
    let tokens = tokens::of(world, TENANT);
    tokens.delete(TOKEN, &DeleteParams::default()).await?;
    Ok(())
}

/// Its kubelet answers every time.
async fn healthz(walled: &Walled<'_>) -> Result<u32> {
    let path = format!("/api/v1/nodes/{NAME}/proxy/healthz");
    let (begun, mut asked) = (Instant::now(), 0);
    while begun.elapsed() < REPLACED {
        let said = walled.kubectl(&["get", "--raw", &path]).await?;
        ensure!(said == "ok", "its kubelet says {said:?}");
        asked += 1;
    }
    Ok(asked)
}

/// The kubelet, and what a pod there has logged.
async fn answers(walled: &Walled<'_>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(walled.tenant.client.clone(), "kube-system");
    let proxies = ListParams::default()
        .labels("k8s-app=kube-proxy")
        .fields(&format!("spec.nodeName={NAME}"));
    let healthz = format!("/api/v1/nodes/{NAME}/proxy/healthz");
    eventually(SOON, "the node is reached", async || {
        let said = walled.kubectl(&["get", "--raw", &healthz]).await?;
        ensure!(said == "ok", "its kubelet says {said:?}");
        let pods = pods.list(&proxies).await?.items;
        let Some(pod) = pods.first() else {
            bail!("no pod runs there");
        };
        let logs = ["-n", "kube-system", "logs", &pod.name_any(), "--tail=1"];
        let said = walled.kubectl(&logs).await?;
        ensure!(!said.trim().is_empty(), "its log is empty");
        Ok(())
    })
    .await
}
