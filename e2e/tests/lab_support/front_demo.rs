//! What `make up` ends with, behind the gateways of this lab.

use anyhow::{Result, ensure};
use stoker_lab::demo::TENANT;

use crate::front::{DOMAIN, install, tenant_connections};
use crate::node_dials::talks_to;
use crate::world::World;

/// Its worker.
const WORKER: u8 = 1;

/// The tenant of `examples/tenant.yaml`, a worker that joins it by an unmodified `kubeadm join`, and its workload, all by the
/// stable name; again, which changes nothing.
pub(crate) async fn the_main_job_is_done_through_the_gateway(world: &World) -> Result<()> {
    install(world).await?;
    for _ in 0..2 {
        world.lab.demo(Some(DOMAIN)).await?;
    }
    let said = world.lab.kubectl_with(TENANT, &["cluster-info"]).await?;
    ensure!(said.contains(DOMAIN), "kubectl dials elsewhere: {said}");
    let worker = world.lab.host(&format!("worker-{WORKER}"))?;
    let gateway = world.lab.gateway_address().await?;
    ensure!(
        talks_to(&worker, gateway).await?,
        "the node does not dial the gateway"
    );
    let connections = tenant_connections(world, TENANT).await?;
    ensure!(connections > 0, "no connection went through a gateway");
    world.lab.remove_worker(WORKER).await?;
    world.delete(TENANT).await
}
