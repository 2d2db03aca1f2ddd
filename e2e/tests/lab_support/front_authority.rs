//! A tenant's cluster authority is replaced under a joined machine, its pods, and people with kubeconfigs from before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_api::labels::NODE_AUTHORITY;
use stoker_pki::is_signed_by;

use crate::conditions::find;
use crate::front::{Front, TENANT};
use crate::front_load::Load;
use crate::units::{AGENT, kill, process, property};
use crate::world::{World, eventually, text};

/// Two roll-outs on two busy cores, and two or three looks of the agent, which looks once a minute.
const LIMIT: Duration = Duration::from_mins(8);
const SOON: Duration = Duration::from_mins(2);
const KUBELET: &str = "kubelet.service";
const CONDITION: &str = "CertificateAuthorityApplied";

/// Nobody notices: not the node, nor its pods, one of which knows the old authority alone to its end, nor people with kubeconfigs
/// from before, until these are no longer let in.
pub(crate) async fn another_authority_takes_over_and_nodes_pods_and_people_go_on(
    world: &World,
) -> Result<()> {
    let front = Front::joined(world).await?;
    let worker = front.worker()?;
    let units = async || {
        let found = async |unit| {
            let restarts = property(&worker, unit, "NRestarts").await?;
            anyhow::Ok((process(&worker, unit).await?, restarts))
        };
        anyhow::Ok([found(AGENT).await?, found(KUBELET).await?])
    };
    let units_before = units().await?;
    let failed = front.failures_of_client().await?;
    let [old] = pins(world)
        .await?
        .try_into()
        .ok()
        .context("it has several authorities")?;
    let people = Load::start(&front);
    let begun = Instant::now();
    wish(
        world,
        json!({ "generation": 1, "formerTrustSeconds": 3600 }),
    )
    .await?;
    said(world, "AuthorityFormerTrusted", begun).await?;
    let counts = people.end().await?;
    println!(
        "{} questions by the old kubeconfig, slowest {:?}, asked again: {:?}",
        counts.asked, counts.slowest, counts.retried
    );
    ensure!(counts.lost.is_empty(), "not answered: {:?}", counts.lost);
    let both = pins(world).await?;
    ensure!(both.len() == 2 && both[1] == old, "{both:?} after {old}");
    let nodes: Api<Node> = Api::all(front.tenant.client.clone());
    let node = nodes.get(worker.name()).await?;
    ensure!(
        node.annotations().get(NODE_AUTHORITY) == Some(&both[0]),
        "the node says {:?}",
        node.annotations()
    );
    for file in ["kubelet-client-current.pem", "kubelet-server-current.pem"] {
        let path = format!("/var/lib/kubelet/pki/{file}");
        let held = worker.run(["cat", &path]).await?;
        ensure!(
            is_signed_by(&held, &trusted(world).await?),
            "{file} is of the old one"
        );
    }
    // The agent ran on and had the kubelet restarted; neither failed.
    let units_now = units().await?;
    let ([agent, kubelet], [agent_before, kubelet_before]) = (&units_now, &units_before);
    ensure!(
        agent == agent_before && kubelet.0 != kubelet_before.0 && kubelet.1 == kubelet_before.1,
        "agent and kubelet, processes and restarts: {units_before:?}, now {units_now:?}"
    );

    wish(world, json!({ "formerTrustSeconds": 0 })).await?;
    said(world, "AuthorityCurrent", begun).await?;
    ensure!(
        pins(world).await? == [both[0].clone()],
        "the old one is left"
    );
    let version = http::Request::get("/api").body(Vec::new())?;
    let before = world.lab.tenant_client(&front.tenant.kubeconfig).await?;
    let refused = before.request_text(version).await;
    ensure!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 401),
        "a kubeconfig of the old authority: {refused:?}"
    );

    world.lab.write_tenant_kubeconfig(TENANT, TENANT).await?;
    let front = Front::of(world, TENANT, json!({})).await?;
    told_to_pods(&front, &both[0]).await?;
    // One that begins anew looks at once.
    kill(&worker, AGENT).await?;
    eventually(SOON, "the machine believes the new one alone", async || {
        let file = worker.run(["cat", "/etc/kubernetes/pki/ca.crt"]).await?;
        let believed = stoker_pki::pins(&file)?;
        ensure!(believed == [both[0].clone()], "it believes {believed:?}");
        Ok(())
    })
    .await?;
    world.lab.check_workload(TENANT).await?;
    front.client_is_served().await?;
    let now = front.failed_of_client().await?;
    let now = &now[failed..];
    println!(
        "over after {:.0?}; questions of a pod that knows the old authority alone that failed: {now:?}",
        begun.elapsed()
    );
    // An API server that ends says so to those that are connected (429), who ask again by themselves.
    let believed = now.iter().all(|line| !line.contains("x509"));
    ensure!(believed && now.len() <= 3, "it is cut off");
    front.noticed_nothing().await
}

async fn wish(world: &World, wish: serde_json::Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "kubernetes": { "certificateAuthority": wish } } }));
    let params = PatchParams::default();
    world.tenants(TENANT).patch(TENANT, &params, &patch).await?;
    Ok(())
}

/// Waits until the tenant says so of its present spec; prints what it says until then.
async fn said(world: &World, reason: &str, begun: Instant) -> Result<()> {
    let mut before = String::new();
    eventually(LIMIT, reason, async || {
        let tenant = world.tenants(TENANT).get(TENANT).await?;
        let generation = tenant.metadata.generation;
        let status = tenant.status.unwrap_or_default();
        let found = find(&status.conditions, CONDITION).context("it says nothing")?;
        if found.reason != before {
            before.clone_from(&found.reason);
            println!(
                "{:.0?} {}: {}",
                begun.elapsed(),
                found.reason,
                found.message
            );
        }
        let is_said = found.reason == reason && found.observed_generation == generation;
        ensure!(is_said, "{}: {}", found.reason, found.message);
        Ok(())
    })
    .await
}

/// Pins of the authorities that the tenant believes, the one that signs first.
async fn pins(world: &World) -> Result<Vec<String>> {
    Ok(stoker_pki::pins(&trusted(world).await?)?)
}

/// They, PEM.
async fn trusted(world: &World) -> Result<String> {
    let secret = world.secrets(TENANT).get(&format!("{TENANT}-ca")).await?;
    text(&secret, "ca.crt")
}

/// What pods that start from now on believe is the new one alone.
async fn told_to_pods(front: &Front<'_>, pin: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(front.tenant.client.clone(), "default");
    eventually(SOON, "pods are told", async || {
        let map = maps.get("kube-root-ca.crt").await?;
        let text = map.data.and_then(|mut data| data.remove("ca.crt"));
        let found = stoker_pki::pins(&text.context("nothing")?)?;
        ensure!(found == [pin], "they are told of {found:?}");
        Ok(())
    })
    .await
}
