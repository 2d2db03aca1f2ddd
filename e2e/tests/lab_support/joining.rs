//! A machine that joins by a `JoinToken`, with a real kubelet and containerd, and leaves again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_api::labels::{JOINING, LEFT};
use stoker_lab::demo::TENANT;
use stoker_lab::host::Host;
use stoker_lab::host::supervisor::Program;
use stoker_lab::images::pause_reference;

use crate::tokens;
use crate::world::{Tenant, World, eventually};

const WORKER: u8 = 7;
const NAME: &str = "worker-7";
const SOON: Duration = Duration::from_mins(1);
/// What must be gone after a machine has left.
const MADE: [&str; 5] = [
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/pki/ca.crt",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/pki",
    "/var/lib/stoker-node",
];

/// It gets the labels and taints of its token before a pod lands, runs one, leaves nothing behind, cannot come back by a
/// token that is used up, and can by another one, under its old name.
pub(crate) async fn a_machine_joins_by_its_token_leaves_and_joins_again(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let worker = world.lab.add_worker(WORKER, world.lab.kubernetes()).await?;
    let program = tokens::built().await?;
    let stoker_node = program.display().to_string();
    let spec = json!({
        "labels": { "pool": "gpu", "node-restriction.kubernetes.io/pool": "gpu" },
        "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }],
        "nodeNames": [NAME],
    });
    let first = tokens::issue(world, TENANT, "first", &spec).await?;
    let look = [&*stoker_node, "join", &first, "--preflight-only"];
    worker
        .run(look)
        .await
        .context("looking whether it can join")?;
    nothing_is_left(&worker).await?;

    let begun = Instant::now();
    let kubeconfig = world.lab.paths().kubeconfig(TENANT);
    let join = |token: String| {
        let (lab, worker, kubeconfig, program) = (&world.lab, &worker, &kubeconfig, &program);
        async move {
            lab.join_by_token(worker, kubeconfig, program, &[&token])
                .await
        }
    };
    join(first.clone()).await?;
    println!("joined and ready after {:.1?}", begun.elapsed());
    let nodes: Api<Node> = Api::all(tenant.client.clone());
    let node = nodes.get(NAME).await?;
    is_equipped(&node)?;
    let image = pause_reference(world.lab.kubernetes());
    runs_a_pod(&tenant, "on-the-joined", "gpu", &image).await?;
    worker.keep_running(&Program {
        name: "stoker-node".into(),
        command: vec![stoker_node.clone(), "run".into()],
        ..Program::default()
    })?;
    eventually(SOON, "the agent reports", async || {
        let node = nodes.get(NAME).await?;
        let agent = node.annotations().get("stoker.dev/node-agent").cloned();
        agent.context("it says nothing")
    })
    .await?;

    another_clusters_files_are_left_alone(&worker, &stoker_node).await?;
    is_cut_off_while_it_leaves(&worker, &stoker_node, &nodes).await?;
    // By its certificate: the token is used up.
    join(first.clone()).await?;
    let back = nodes.get(NAME).await?;
    ensure!(back.uid() == node.uid(), "it is another Node");
    is_equipped(&back)?;

    leave(&worker, &stoker_node).await?;
    let left = nodes.get(NAME).await?;
    ensure!(left.annotations().contains_key(LEFT), "it is not marked");
    let refused = worker.run([&*stoker_node, "join", &first]).await;
    let refused = format!("{:#}", refused.err().context("a used token lets it in")?);
    ensure!(refused.contains("all its machines have come"), "{refused}");
    nothing_is_left(&worker).await?;

    let second = tokens::issue(world, TENANT, "second", &spec).await?;
    join(second).await?;
    let again = nodes.get(NAME).await?;
    ensure!(again.uid() != node.uid(), "it is the Node of before");
    is_equipped(&again)?;

    leave(&worker, &stoker_node).await?;
    nodes.delete(NAME, &DeleteParams::default()).await?;
    world.lab.remove_worker(WORKER).await?;
    for token in ["first", "second"] {
        let params = DeleteParams::default();
        tokens::of(world, TENANT).delete(token, &params).await?;
    }
    Ok(())
}

fn is_equipped(node: &Node) -> Result<()> {
    let labels = ["pool", "node-restriction.kubernetes.io/pool"];
    let has = |label: &str| node.labels().get(label).is_some_and(|value| value == "gpu");
    let taints = node.spec.iter().flat_map(|spec| &spec.taints).flatten();
    let keys: Vec<&str> = taints.map(|taint| taint.key.as_str()).collect();
    ensure!(
        labels.into_iter().all(has) && keys.contains(&"gpu") && !keys.contains(&JOINING),
        "labels {:?}, taints {keys:?}",
        node.labels()
    );
    let spec = node.spec.clone().unwrap_or_default();
    ensure!(spec.unschedulable != Some(true), "it is cordoned");
    Ok(())
}

/// On a node of that pool alone, and only since it tolerates the taint.
pub(crate) async fn runs_a_pod(tenant: &Tenant, name: &str, pool: &str, image: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeSelector": { "node-restriction.kubernetes.io/pool": pool },
            "tolerations": [{ "key": "gpu", "operator": "Exists" }],
            "containers": [{
                "name": "pause", "image": image, "imagePullPolicy": "Never",
            }],
        },
    });
    let pods: Api<Pod> = Api::namespaced(tenant.client.clone(), "default");
    let params = PatchParams::apply("e2e").force();
    pods.patch(name, &params, &Patch::Apply(pod)).await?;
    eventually(SOON, "a pod runs on it", async || {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        ensure!(phase == "Running", "it is {phase}: {:?}", status.conditions);
        Ok(())
    })
    .await
}

/// Somebody has joined the machine to something else since, and did not say so to this agent.
async fn another_clusters_files_are_left_alone(worker: &Host, stoker_node: &str) -> Result<()> {
    let edit = |script: &'static str| worker.run(["sh", "-c", script]);
    edit("sed -i 's#https://#https://another.#' /etc/kubernetes/kubelet.conf").await?;
    let refused = worker.run([stoker_node, "leave"]).await;
    let refused = format!("{:#}", refused.err().context("it leaves what it is not")?);
    ensure!(refused.contains("another one now"), "{refused}");
    for path in MADE {
        let there = worker.run(["test", "-e", path]).await;
        there.with_context(|| format!("{path} is gone"))?;
    }
    edit("sed -i 's#https://another.#https://#' /etc/kubernetes/kubelet.conf").await?;
    Ok(())
}

/// No tool of its runtime's is there, by which its containers could be removed: its name is not free, and it may come back.
async fn is_cut_off_while_it_leaves(
    worker: &Host,
    stoker_node: &str,
    nodes: &Api<Node>,
) -> Result<()> {
    let line = ["env", "PATH=/nowhere", stoker_node, "leave"];
    let line = line.into_iter().chain(["--drain-seconds", "0"]);
    let stopped = worker.run(line).await;
    let stopped = format!("{:#}", stopped.err().context("it leaves nevertheless")?);
    ensure!(stopped.contains("neither crictl nor ctr"), "{stopped}");
    let node = nodes.get(NAME).await?;
    ensure!(
        !node.annotations().contains_key(LEFT),
        "its name is given away"
    );
    let spec = node.spec.unwrap_or_default();
    ensure!(spec.unschedulable == Some(true), "it is not cordoned");
    Ok(())
}

async fn leave(worker: &Host, stoker_node: &str) -> Result<()> {
    let agent = worker.run(["pgrep", "-o", "-f", "stoker-node run"]).await?;
    let begun = Instant::now();
    worker
        .run([stoker_node, "leave", "--drain-seconds", "20"])
        .await?;
    println!("left after {:.1?}", begun.elapsed());
    nothing_is_left(worker).await?;
    let containers = worker
        .run(["ctr", "--namespace", "k8s.io", "containers", "list", "-q"])
        .await?;
    ensure!(
        containers.trim().is_empty(),
        "containers are left: {containers}"
    );
    let kubelets = worker.run(["sh", "-c", "pgrep -x kubelet || true"]).await?;
    ensure!(kubelets.trim().is_empty(), "a kubelet runs on");
    // Its tunnel, where it has one, leads here. Whoever supervises it starts another one, which finds nothing to do.
    eventually(Duration::from_secs(5), "its agent ends", async || {
        let there = worker.run(["kill", "-0", agent.trim()]).await.is_ok();
        ensure!(!there, "it runs on");
        Ok(())
    })
    .await
}

pub(crate) async fn nothing_is_left(worker: &Host) -> Result<()> {
    for path in MADE {
        let there = worker.run(["test", "-e", path]).await.is_ok();
        ensure!(!there, "{path} is there");
    }
    Ok(())
}
