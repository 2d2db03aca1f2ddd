//! Two gateways behind one address, and tenants that are reached there alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{HibernationState, TenantControlPlane};
use stoker_lab::host::Host;
use stoker_lab::images::agnhost_reference;
use stoker_lab::product::NAMESPACE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::front_kept::Kept;
use crate::tokens;
use crate::world::{Tenant, World, eventually};

pub(crate) const DOMAIN: &str = "clusters.front.test";
/// The tenant with a node.
pub(crate) const TENANT: &str = "front";
/// Its node.
const WORKER: u8 = 3;
/// The gateway's pods.
pub(crate) const GATEWAY: &str = "stoker-gateway";
/// A gateway that is to end takes connections for so many seconds more, and lets those that are open live on for as many: for
/// longer than two cores with much else to do need to replace all gateways.
pub(crate) const DRAIN: (u64, u64) = (3, 90);
/// The listeners on nodes.
pub(crate) const LISTENER_ADDRESS: &str = "192.0.0.64";
/// The pod that asks its API server every second, as in-cluster clients do: by the Service's address.
const CLIENT: &str = "in-cluster-client";
const SOON: Duration = Duration::from_mins(1);

/// A tenant behind the gateways, that is Ready.
pub(crate) struct Front<'a> {
    pub(crate) world: &'a World,
    pub(crate) tenant: Tenant,
    /// Its stable name.
    pub(crate) host: String,
}

/// kubectl with the tenant's own kubeconfig, a machine that joins by a token, and pods there, whose clients dial their
/// Service `kubernetes` by address and name nobody that a gateway knows.
pub(crate) async fn people_nodes_and_pods_reach_their_api_server_through_the_gateway(
    world: &World,
) -> Result<()> {
    let front = Front::of(world, TENANT, json!({})).await?;
    let said = world.lab.kubectl_with(TENANT, &["cluster-info"]).await?;
    let endpoint = format!("https://{}:6443", front.host);
    ensure!(said.contains(&endpoint), "kubectl dials elsewhere: {said}");
    let front = Front::joined(world).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(front.tenant.client.clone(), "default");
    let ours = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let slices = slices.list(&ours).await?.items;
    let addresses = slices.iter().flat_map(|slice| &slice.endpoints);
    let addresses: Vec<_> = addresses.flat_map(|point| &point.addresses).collect();
    ensure!(
        addresses == [LISTENER_ADDRESS],
        "pods are led to {addresses:?}, not to the listener"
    );
    let connections = tenant_connections(world, TENANT).await?;
    ensure!(connections > 0, "no connection went through a gateway");
    println!("{connections} connections of the tenant through the gateways");
    front.noticed_nothing().await
}

impl<'a> Front<'a> {
    /// A tenant of that name, made when it is not there, woken when a scenario that failed left it asleep: of service type `ClusterIP`, with the listener on its nodes, and
    /// one that may sleep.
    pub(crate) async fn of(world: &'a World, name: &str, change: Value) -> Result<Self> {
        install(world).await?;
        let found = world.tenants(name).get_opt(name).await?;
        let woken = match &found {
            Some(tenant) => wakes(world, name, tenant).await?,
            None => false,
        };
        if found.is_none() {
            // What a machine without the right to set these needs.
            let conntrack = json!([{
                "op": "add", "path": "/conntrack", "value": { "maxPerCore": 0, "min": 0 },
            }]);
            let mut spec = json!({
                "controlPlane": { "service": { "serviceType": "ClusterIP" } },
                "addons": {
                    "nodeListener": {},
                    "kubeProxy": { "configurationJSONPatches": conntrack },
                },
                "hibernation": {},
            });
            json_patch::merge(&mut spec, &change);
            world.apply_tenant(name, spec).await?;
        }
        let host = world.lab.lead_to_gateway(name, name, DOMAIN).await?;
        let address = world.lab.gateway_address().await?;
        looked_up(&world.host()?, &host, &address.to_string()).await?;
        let tenant = world.ready(name).await?;
        if woken && name == TENANT {
            Kept::woken();
        }
        world.lab.write_tenant_kubeconfig(name, name).await?;
        Ok(Self {
            world,
            tenant,
            host,
        })
    }

    /// The one with a node, a machine with systemd that has joined by a token, and pods there.
    pub(crate) async fn joined(world: &'a World) -> Result<Self> {
        let front = Self::of(world, TENANT, json!({})).await?;
        let nodes: Api<Node> = Api::all(front.tenant.client.clone());
        let name = format!("worker-{WORKER}");
        if nodes.get_opt(&name).await?.is_none() {
            let (lab, version) = (&world.lab, world.lab.kubernetes());
            let worker = lab.add_worker_with_systemd(WORKER, version).await?;
            front.join(&worker).await?;
        }
        if !Kept::is_noted() {
            world.lab.start_workload(TENANT).await?;
            world.lab.check_workload(TENANT).await?;
            front.start_client().await?;
        }
        front.client_is_served().await?;
        Kept::note(&front).await?;
        Ok(front)
    }

    /// A machine joins by a token.
    pub(crate) async fn join(&self, worker: &Host) -> Result<()> {
        let name = &self.tenant.name;
        let program = tokens::built().await?;
        let token = tokens::issue(self.world, name, worker.name(), &json!({})).await?;
        let begun = Instant::now();
        let kubeconfig = self.world.lab.paths().kubeconfig(name);
        let words = [&*token];
        let join = self
            .world
            .lab
            .join_by_token(worker, &kubeconfig, &program, &words);
        join.await?;
        println!(
            "{} joined and Ready after {:.1} s",
            worker.name(),
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Its node.
    pub(crate) fn worker(&self) -> Result<Host> {
        self.world.lab.host(&format!("worker-{WORKER}"))
    }

    /// Since it joined its node was Ready, no pod of the tenant was replaced and no container restarted.
    pub(crate) async fn noticed_nothing(&self) -> Result<()> {
        Kept::is_still(self).await
    }

    async fn start_client(&self) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": CLIENT },
            "spec": { "containers": [{
                "name": "client", "image": agnhost_reference(), "imagePullPolicy": "Never",
                "args": ["inclusterclient", "--poll-interval=1"],
            }]},
        });
        let params = PatchParams::apply("e2e").force();
        self.pods()
            .patch(CLIENT, &params, &Patch::Apply(pod))
            .await?;
        Ok(())
    }

    /// Every one of the last three requests of the pod's client was answered.
    pub(crate) async fn client_is_served(&self) -> Result<()> {
        eventually(
            SOON,
            "a pod asks its API server by its Service",
            async || {
                let recent = LogParams {
                    tail_lines: Some(6),
                    ..LogParams::default()
                };
                let log = self.pods().logs(CLIENT, &recent).await?;
                let asked = log.matches("authz_header=").count();
                ensure!(asked >= 3 && !log.contains("failed"), "it says {log}");
                Ok(())
            },
        )
        .await
    }

    /// How many requests of the pod's client were not answered.
    pub(crate) async fn failures_of_client(&self) -> Result<usize> {
        Ok(self.failed_of_client().await?.len())
    }

    /// What its client says of them.
    pub(crate) async fn failed_of_client(&self) -> Result<Vec<String>> {
        let log = self.pods().logs(CLIENT, &LogParams::default()).await?;
        let failed = log.lines().filter(|line| line.contains("status=failed"));
        Ok(failed.map(str::to_owned).collect())
    }

    /// What containerd calls the container of the pod's client.
    pub(crate) async fn container_of_client(&self) -> Result<String> {
        let status = self.pods().get(CLIENT).await?.status.unwrap_or_default();
        let container = status.container_statuses.into_iter().flatten().next();
        let id = container.and_then(|container| container.container_id);
        let id = id.context("the client runs in no container")?;
        Ok(id.trim_start_matches("containerd://").to_owned())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.tenant.client.clone(), "default")
    }
}

/// Wakes a tenant that sleeps by hand; whether it did.
async fn wakes(world: &World, name: &str, tenant: &TenantControlPlane) -> Result<bool> {
    let asked = tenant.spec.hibernation.as_ref();
    let asked = asked.and_then(|hibernation| hibernation.sleep_at.as_ref());
    let status = tenant.status.as_ref();
    let status = status.and_then(|status| status.hibernation.as_ref());
    let sleeps = status.is_some_and(|status| {
        // Or is about to.
        status.state == HibernationState::Asleep || asked.is_some_and(|at| at.0 > status.since.0)
    });
    if sleeps {
        println!("{name} sleeps and is woken first");
        let now = format!("{:.0}", Timestamp::now());
        let patch = Patch::Merge(json!({ "spec": { "hibernation": { "wakeAt": now } } }));
        let params = PatchParams::default();
        world.tenants(name).patch(name, &params, &patch).await?;
    }
    Ok(sleeps)
}

/// Names, the operator's base domain, and the gateways, where they are not there yet.
pub(crate) async fn install(world: &World) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(world.management.clone(), NAMESPACE);
    if deployments.get_opt(GATEWAY).await?.is_some() {
        return Ok(());
    }
    let (delay, drain) = DRAIN;
    let flags = [
        format!("--drain-delay-seconds={delay}"),
        format!("--drain-seconds={drain}"),
    ];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    world.lab.install_front_door(DOMAIN, &flags).await
}

/// Waits until DNS says so.
pub(crate) async fn looked_up(from: &Host, name: &str, address: &str) -> Result<()> {
    eventually(Duration::from_secs(15), "DNS follows", async || {
        let said = from.run(["getent", "hosts", name]).await?;
        ensure!(
            said.split_whitespace().next() == Some(address),
            "it says {said}"
        );
        Ok(())
    })
    .await
}

/// The gateway's pods that are not about to end.
pub(crate) async fn gateways(world: &World) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(world.management.clone(), NAMESPACE);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={GATEWAY}"));
    let mut pods = pods.list(&ours).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// A pod's address.
pub(crate) fn address(pod: &Pod) -> Result<&str> {
    let status = pod.status.as_ref();
    let address = status.and_then(|status| status.pod_ip.as_deref());
    address.context("a pod without an address")
}

/// Connections that gateways have led to a tenant.
pub(crate) async fn tenant_connections(world: &World, tenant: &str) -> Result<u64> {
    let series = format!("stoker_gateway_tenant_connections_total{{tenant=\"{tenant}/{tenant}\"}}");
    metric(world, &series).await
}

/// The sum of a series over all gateways.
pub(crate) async fn metric(world: &World, series: &str) -> Result<u64> {
    let mut sum = 0;
    for pod in gateways(world).await? {
        let mut stream = TcpStream::connect((address(&pod)?, 8081)).await?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        sum += value.map_or(Ok(0), str::parse)?;
    }
    Ok(sum)
}
