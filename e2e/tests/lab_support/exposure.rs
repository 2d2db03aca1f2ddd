//! Tenants behind Services that are no load balancers.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::json;

use crate::world::{Tenant, World};

pub(crate) async fn cluster_ip_and_node_port_tenants_become_ready(world: &World) -> Result<()> {
    let node = world.lab.addresses().management().to_string();
    let (inside, port) = ("inside", "port");
    let service = |type_: &str| json!({ "service": { "serviceType": type_ } });
    world
        .apply_tenant(inside, json!({ "controlPlane": service("ClusterIP") }))
        .await?;
    let profile = json!({ "address": node });
    world
        .apply_tenant(
            port,
            json!({ "controlPlane": service("NodePort"), "networkProfile": profile }),
        )
        .await?;

    let tenant = world.ready(inside).await?;
    let (host, number) = endpoint(world, inside).await?;
    let services = world.lab.addresses().services();
    let first = services[0].split('.').take(2).collect::<Vec<_>>().join(".");
    ensure!(
        host.starts_with(&first) && number == 6443,
        "{host}:{number} is not of {services:?}"
    );
    answers(&tenant).await?;

    let tenant = world.ready(port).await?;
    let (host, number) = endpoint(world, port).await?;
    ensure!(
        host == node && (30000..=32767).contains(&number),
        "{host}:{number} is no node port"
    );
    answers(&tenant).await?;
    tokio::try_join!(world.delete(inside), world.delete(port)).map(drop)
}

pub(crate) async fn a_node_port_out_of_range_is_reported_and_can_be_mended(
    world: &World,
) -> Result<()> {
    let name = "ranged";
    let change = |port: u16| {
        json!({
            "controlPlane": { "service": { "serviceType": "NodePort" } },
            "networkProfile": { "address": world.lab.addresses().management().to_string(), "port": port },
        })
    };
    world.apply_tenant(name, change(6443)).await?;
    let message = world.condition(name, "Ready", false, "30000-32767").await?;
    println!("it says: {message}");
    ensure!(message.contains("6443"), "the port is not named: {message}");
    world.apply_tenant(name, change(32443)).await?;
    let tenant = world.ready(name).await?;
    ensure!(
        endpoint(world, name).await?.1 == 32443,
        "the endpoint has another port"
    );
    answers(&tenant).await?;
    world.delete(name).await
}

async fn endpoint(world: &World, name: &str) -> Result<(String, u16)> {
    let endpoint = world
        .status(name)
        .await?
        .control_plane_endpoint
        .context("no endpoint")?;
    let (host, port) = endpoint
        .rsplit_once(':')
        .context("an endpoint is host:port")?;
    Ok((host.to_owned(), port.parse()?))
}

/// The kubeconfig that the tenant's users get works from here.
async fn answers(tenant: &Tenant) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(tenant.client.clone());
    namespaces
        .get("kube-system")
        .await
        .context("with the tenant's kubeconfig")
        .map(drop)
}
