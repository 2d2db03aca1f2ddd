//! The load balancer in front of the gateways gets another address, and DNS follows.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_lab::images::agnhost_reference;
use stoker_lab::product::NAMESPACE;
use tokio::net::TcpStream;

use crate::front::{DOMAIN, Front, GATEWAY, TENANT, looked_up};
use crate::node_dials::talks_to;
use crate::node_lease::renewed;
use crate::world::{World, eventually};

const SOON: Duration = Duration::from_secs(20);
/// A kubelet renews its node's lease every ten seconds, and finds out then that it was cut.
const LIVES: Duration = Duration::from_secs(25);
/// The nft table that cuts what is connected.
const TABLE: &str = "stoker_front";

/// People find it at once. Those who are connected are not cut; when the old address is given up, which cuts them, the node
/// and its pods go on by the new one. (One that falls silent without a word: `stable_name`.)
pub(crate) async fn another_address_of_the_gateway_is_found_by_its_name(
    world: &World,
) -> Result<()> {
    // Of a run that was interrupted.
    world.host()?.run(["nft", &not_cut_off()]).await?;
    let front = Front::joined(world).await?;
    let worker = front.worker()?;
    let old = world.lab.gateway_address().await?;
    let (first, last) = world.lab.addresses().load_balancers();
    let new: IpAddr = if old == last { first } else { last }.into();
    ensure!(
        talks_to(&worker, old).await?,
        "the node does not dial {old}"
    );
    let begun = Instant::now();
    move_to(world, new).await?;
    for host in [&worker, &world.host()?] {
        looked_up(host, &front.host, &new.to_string()).await?;
    }
    world
        .lab
        .kubectl_with(TENANT, &["get", "namespaces"])
        .await?;
    println!(
        "another address: kubectl is served there after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    ensure!(talks_to(&worker, old).await?, "what was connected was cut");
    runs_a_pod(world).await?;

    // With a client of the new address.
    let front = Front::joined(world).await?;
    world.host()?.run(["nft", &cut_off(old)]).await?;
    let gone_on = goes_on_at(&front, new).await;
    world.host()?.run(["nft", &not_cut_off()]).await?;
    gone_on
}

/// What was connected by the old address is being cut.
async fn goes_on_at(front: &Front<'_>, new: IpAddr) -> Result<()> {
    let (world, worker, begun) = (front.world, front.worker()?, Instant::now());
    let found_out = "the node is alive by the new address";
    eventually(LIVES, found_out, async || {
        ensure!(talks_to(&worker, new).await?, "it does not dial it");
        let renewed = renewed(&front.tenant.client, worker.name()).await?;
        let age = Timestamp::now().duration_since(renewed);
        ensure!(age.unsigned_abs() < begun.elapsed(), "not since");
        Ok(())
    })
    .await?;
    println!(
        "the old address is given up: {found_out} after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    runs_a_pod(world).await?;
    front.client_is_served().await?;
    front.noticed_nothing().await
}

/// Whether something is cut or not.
fn not_cut_off() -> String {
    format!("add table ip {TABLE}; delete table ip {TABLE}")
}

/// Resets whatever is still connected by the address.
fn cut_off(address: IpAddr) -> String {
    format!(
        "add table ip {TABLE}; \
         add chain ip {TABLE} forward {{ type filter hook forward priority -10; }}; \
         add rule ip {TABLE} forward ct original ip daddr {address} meta l4proto tcp reject with tcp reset"
    )
}

/// The gateways' load balancer, and every name that leads to it.
async fn move_to(world: &World, new: IpAddr) -> Result<()> {
    let services: Api<Service> = Api::namespaced(world.management.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "loadBalancerIP": new } }));
    let params = PatchParams::default();
    services.patch(GATEWAY, &params, &patch).await?;
    // The Service says its address before kube-proxy leads there what arrives for it: names follow what answers.
    eventually(SOON, "the load balancer moves", async || {
        let found = world.lab.gateway_address().await?;
        ensure!(found == new, "it is at {found}");
        TcpStream::connect((new, 6443)).await?;
        Ok(())
    })
    .await?;
    let tenants: Api<TenantControlPlane> = Api::all(world.management.clone());
    for tenant in tenants.list(&ListParams::default()).await? {
        let endpoint = tenant
            .status
            .and_then(|status| status.control_plane_endpoint);
        let endpoint = endpoint.unwrap_or_default();
        let host = endpoint.strip_suffix(":6443").unwrap_or_default();
        if host.ends_with(DOMAIN) {
            world.lab.point(host, &[new])?;
        }
    }
    Ok(())
}

/// The kubelet hears of a new pod, and its address reaches the control plane.
async fn runs_a_pod(world: &World) -> Result<()> {
    let argument = format!("--image={}", agnhost_reference());
    let kubectl = async |arguments: &[&str]| world.lab.kubectl_with(TENANT, arguments).await;
    let delete = ["delete", "pod", "afterwards", "--now", "--ignore-not-found"];
    // Of a run that was interrupted.
    kubectl(&delete).await?;
    kubectl(&["run", "afterwards", &argument, "--", "pause"]).await?;
    let ready = "--for=condition=Ready";
    kubectl(&["wait", ready, "--timeout=60s", "pod/afterwards"]).await?;
    kubectl(&delete).await.map(drop)
}
