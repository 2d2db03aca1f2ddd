//! What can be reached from inside a control-plane pod, with traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_lab::demo::TENANT;
use stoker_lab::host::supervisor::Program;

use crate::world::{World, eventually};

/// A pod without any of our labels, beside the control-plane pods of another tenant.
const BYSTANDER: &str = "bystander";
/// Where clouds tell a machine who it is, credentials included.
const METADATA: &str = "169.254.169.254";
/// Seconds in which a connection is made, or is not.
const PATIENCE: u8 = 2;

/// A place to dial, and whether a control-plane pod may.
struct Target {
    what: &'static str,
    address: String,
    allowed: bool,
}

pub(crate) async fn control_plane_pods_reach_the_pool_and_nothing_else_of_management(
    world: &World,
) -> Result<()> {
    world.main_tenant().await?;
    world.tenant("other").await?;
    serve_metadata(world).await?;
    let bystander = bystander(world, "other").await?;
    let control_plane = world
        .pods(TENANT)
        .await?
        .into_iter()
        .next()
        .context("no pod")?;
    let inside = world.pid(&control_plane, "kube-apiserver").await?;
    let outside = world.pid(&bystander, BYSTANDER).await?;
    let targets = targets(world, &bystander).await?;

    // Without the policy every target answers, so that a closed one below is the policy's work.
    eventually(
        Duration::from_secs(20),
        "the bystander reaches everything",
        async || {
            let reached = dial(world, &outside, &targets).await?;
            let closed: Vec<_> = targets
                .iter()
                .filter(|target| !reached[&target.address])
                .collect();
            ensure!(
                closed.is_empty(),
                "not reached: {:?}",
                closed.iter().map(|t| t.what).collect::<Vec<_>>()
            );
            Ok(())
        },
    )
    .await?;
    let reached = dial(world, &inside, &targets).await?;
    for target in &targets {
        let (what, address) = (target.what, &target.address);
        println!(
            "{what} ({address}): {}",
            if reached[address] {
                "reached"
            } else {
                "not reached"
            }
        );
    }
    for target in &targets {
        ensure!(
            reached[&target.address] == target.allowed,
            "from a control-plane pod, {} ({}) must {}be reached",
            target.what,
            target.address,
            if target.allowed { "" } else { "not " }
        );
    }
    ingress(world, &control_plane, &outside).await
}

/// Into a control-plane pod: the API server's port from anywhere, the others from the node alone.
async fn ingress(world: &World, pod: &Pod, outside: &str) -> Result<()> {
    let ip = address(pod)?;
    let ports = [
        ("API server", 6443, true),
        ("controller manager", 10257, false),
        ("scheduler", 10259, false),
    ];
    let targets: Vec<_> = ports
        .iter()
        .map(|&(what, port, allowed)| Target {
            what,
            address: format!("{ip}/{port}"),
            allowed,
        })
        .collect();
    let from_pod = dial(world, outside, &targets).await?;
    let from_node = dial(world, "1", &targets).await?;
    for target in &targets {
        ensure!(
            from_node[&target.address],
            "the node's probes reach the {}",
            target.what
        );
        ensure!(
            from_pod[&target.address] == target.allowed,
            "another pod and the {} of a tenant: {}",
            target.what,
            from_pod[&target.address]
        );
    }
    Ok(())
}

async fn targets(world: &World, bystander: &Pod) -> Result<Vec<Target>> {
    let plan = world.lab.addresses();
    let management = plan.management();
    let other = world
        .pods("other")
        .await?
        .into_iter()
        .next()
        .context("no pod")?;
    let services: Api<Service> = Api::namespaced(world.management.clone(), "other");
    let service = services
        .get("other")
        .await?
        .spec
        .and_then(|spec| spec.cluster_ip);
    let service = service.context("the other tenant has no ClusterIP")?;
    let operators: Api<Pod> = Api::namespaced(world.management.clone(), "stoker-system");
    let operator = operators.list(&ListParams::default()).await?.items;
    let operator = address(operator.first().context("no operator runs")?)?;
    let closed = |what, address| Target {
        what,
        address,
        allowed: false,
    };
    Ok(vec![
        Target {
            what: "the pool's etcd",
            address: format!("{}/2379", plan.pool()),
            allowed: true,
        },
        closed("management API server", format!("{management}/6443")),
        closed(
            "management API server's Service",
            format!("{}/443", plan.kubernetes_service()),
        ),
        closed(
            "kubelet of the management node",
            format!("{management}/10250"),
        ),
        closed("management etcd", format!("{management}/2379")),
        closed("management DNS", format!("{}/53", plan.dns_service())),
        closed("the operator's metrics", format!("{operator}/8080")),
        closed(
            "another tenant's API server pod",
            format!("{}/6443", address(&other)?),
        ),
        closed("another tenant's Service", format!("{service}/6443")),
        closed(
            "a pod of somebody else",
            format!("{}/8080", address(bystander)?),
        ),
        closed("the cloud's metadata", format!("{METADATA}/80")),
    ])
}

/// Dials all targets at once from the network of a process of the management host.
async fn dial(world: &World, pid: &str, targets: &[Target]) -> Result<BTreeMap<String, bool>> {
    let attempt = |target: &Target| {
        let address = &target.address;
        format!(
            "(timeout {PATIENCE} bash -c 'exec 3<>/dev/tcp/{address}' 2>/dev/null \
             && echo '{address} yes' || echo '{address} no') &"
        )
    };
    let attempts: Vec<_> = targets.iter().map(attempt).collect();
    let script = format!("{}\nwait", attempts.join("\n"));
    let said = world
        .host()?
        .run(["nsenter", "-t", pid, "-n", "--", "bash", "-c", &script])
        .await?;
    let answers: BTreeMap<_, _> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(address, reached)| (address.to_owned(), reached == "yes"))
        .collect();
    ensure!(
        answers.len() == targets.len(),
        "{} answers to {} attempts",
        answers.len(),
        targets.len()
    );
    Ok(answers)
}

fn address(pod: &Pod) -> Result<String> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    ip.with_context(|| format!("{} has no address", pod.name_any()))
}

async fn bystander(world: &World, namespace: &str) -> Result<Pod> {
    let image = stoker_lab::images::agnhost_reference();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": BYSTANDER },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": BYSTANDER, "image": image, "args": ["netexec", "--http-port=8080", "--udp-port=-1"],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    });
    let pods: Api<Pod> = Api::namespaced(world.management.clone(), namespace);
    pods.patch(
        BYSTANDER,
        &PatchParams::apply("e2e").force(),
        &Patch::Apply(pod),
    )
    .await?;
    eventually(Duration::from_mins(1), "the bystander runs", async || {
        let pod = pods.get(BYSTANDER).await?;
        world.pid(&pod, BYSTANDER).await?;
        address(&pod)?;
        Ok(pod)
    })
    .await
}

/// The metadata address of this lab: on the pool's host, where a route of the management host leads.
async fn serve_metadata(world: &World) -> Result<()> {
    let agnhost = world.lab.upstream().agnhost().await?.join("agnhost");
    let pool = world.lab.host(stoker_lab::pool::HOST)?;
    pool.run([
        "ip",
        "address",
        "replace",
        &format!("{METADATA}/32"),
        "dev",
        "lo",
    ])
    .await?;
    let words = ["netexec", "--http-port=80", "--udp-port=-1"].map(str::to_owned);
    pool.keep_running(&Program {
        name: "metadata".into(),
        command: std::iter::once(agnhost.display().to_string())
            .chain(words)
            .collect(),
        ..Program::default()
    })?;
    let via = pool.address().to_string();
    world
        .host()?
        .run(["ip", "route", "replace", METADATA, "via", &via])
        .await
        .map(drop)
}
