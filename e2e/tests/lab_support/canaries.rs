//! Whatever a tenant tells its API server to dial, nothing of management's hears of it (T5, T6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use http::Method;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use stoker_lab::product::NAMESPACE;

use crate::canary_counts::{Counts, METADATA};
use crate::canary_ways::{Answer, Came, Canary, by_the_tunnel, by_url};
use crate::door::{Door, send};
use crate::walled::{Walled, address};
use crate::world::World;

const OTHER: &str = "other";

/// Every way to every canary is tried, and what must come of it is known: what is refused elsewhere proves nothing of walls.
pub(crate) async fn whatever_a_tenant_has_its_api_server_dial_nothing_of_managements_hears_of_it(
    world: &World,
) -> Result<()> {
    let walled = Walled::of(world).await?;
    world.tenant(OTHER).await?;
    let pod = walled.control_plane().await?.remove(0);
    let door = walled.door(&pod).await?;
    // Of a run that was interrupted.
    remove(&door).await?;
    let canaries = canaries(world).await?;
    let counts = Counts::begin(&walled, &pod, &canaries).await?;

    let numbered = || canaries.iter().enumerate();
    let ways = numbered().map(|(number, canary)| by_the_tunnel(&door, &walled.ca, number, canary));
    judge(&join_all(ways).await.concat())?;
    let counted = counts.now().await?;
    println!("by the tunnel: {}", shown(&counted));
    for total in ["loopback", "sent", "arrived"] {
        ensure!(counted[total] == 0, "by the control plane: {total}");
    }
    for (number, canary) in numbered() {
        let dialled = counted[&format!("node-{number}")];
        ensure!(
            (dialled > 0) == canary.is_open(),
            "the tenant's node has dialled {} {dialled} times",
            canary.what
        );
    }

    let ways = numbered().map(|(number, canary)| by_url(&door, number, canary));
    judge(&join_all(ways).await)?;
    let counted = counts.now().await?;
    println!("by URL: {}", shown(&counted));
    ensure!(counted["arrived"] == 0, "management was dialled");
    // The API server dials these itself: what is sent, and counted, is what the walls keep out.
    for (number, canary) in numbered() {
        let from = if canary.is_of_the_pod() {
            "loopback"
        } else {
            "sent"
        };
        let dialled = counted[&format!("{from}-{number}")];
        ensure!(dialled > 0, "{} was not dialled at all", canary.what);
    }
    counts.end().await?;
    remove(&door).await
}

/// What was counted at all.
fn shown(counted: &BTreeMap<String, u64>) -> String {
    let some = counted.iter().filter(|(_, packets)| **packets > 0);
    let some: Vec<_> = some
        .map(|(name, packets)| format!("{name} {packets}"))
        .collect();
    some.join(", ")
}

/// Prints how often what came of each way; nothing may have come that was not expected.
fn judge(answers: &[Answer]) -> Result<()> {
    let mut ways = BTreeMap::<_, BTreeMap<Came, usize>>::new();
    for answer in answers {
        *ways
            .entry(answer.way)
            .or_default()
            .entry(answer.came)
            .or_default() += 1;
    }
    for (way, came) in ways {
        println!("    {way}: {came:?}");
    }
    let mut wrong = answers.iter().filter(|answer| !answer.is_expected());
    let (first, more) = (wrong.next(), wrong.count());
    ensure!(first.is_none(), "{first:?}, and {more} more");
    Ok(())
}

async fn remove(door: &Door) -> Result<()> {
    for collection in [
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "/apis/apiregistration.k8s.io/v1/apiservices",
        "/api/v1/namespaces/default/pods",
        "/api/v1/nodes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        "/api/v1/namespaces/default/endpoints",
        "/api/v1/namespaces/default/services",
    ] {
        let path = format!("{collection}?labelSelector=canary%3Dyes&gracePeriodSeconds=0");
        send(&door.client, Method::DELETE, &path, &json!({}))
            .await
            .context("removing the canaries")?;
    }
    Ok(())
}

async fn canaries(world: &World) -> Result<Vec<Canary>> {
    let plan = world.lab.addresses();
    let client = &world.management;
    let first = async |namespace: &str| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut pods = pods.list(&ListParams::default()).await?.items;
        pods.retain(|pod| address(pod).is_ok());
        address(pods.first().context("no pod")?)
    };
    let services: Api<Service> = Api::namespaced(client.clone(), OTHER);
    let service = services.get(OTHER).await?.spec;
    let service = service.and_then(|spec| spec.cluster_ip);
    let service = service.context("the other tenant has no ClusterIP")?;
    let canary = |what, ip, port| Canary { what, ip, port };
    let management: IpAddr = plan.management().into();
    Ok(vec![
        canary("the management API server", management, 6443),
        canary("the management node's kubelet", management, 10250),
        canary("management etcd", management, 2379),
        // A port where nobody listens.
        canary("the pool's host", plan.pool().into(), 10250),
        canary("the operator's metrics", first(NAMESPACE).await?, 8080),
        canary("another tenant's API server", first(OTHER).await?, 6443),
        canary("another tenant's Service", service.parse()?, 6443),
        canary("the cloud's metadata", METADATA.parse()?, 80),
        canary("the pod's scheduler", "127.0.0.1".parse()?, 10259),
        canary("the pod's health port", "::ffff:127.0.0.1".parse()?, 10271),
    ])
}
