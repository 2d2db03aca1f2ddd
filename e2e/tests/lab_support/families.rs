//! Tenants of every IP family, each with a joined node and pods there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use stoker_lab::host::Host;

use crate::addressed::{Addressed, published};
use crate::world::{Tenant, World, eventually};

const WORKER: u8 = 1;
/// kube-proxy and cluster DNS take a moment to know a new Service.
const KNOWN: Duration = Duration::from_secs(30);

/// An IP family and the networks that tenants here have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    IPv4,
    IPv6,
}

use Family::{IPv4, IPv6};

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { IPv4 } else { IPv6 }
    }

    fn name(self) -> &'static str {
        match self {
            IPv4 => "IPv4",
            IPv6 => "IPv6",
        }
    }

    fn services(self) -> &'static str {
        match self {
            IPv4 => "10.96.0.0/16",
            IPv6 => "fd00:10:96::/112",
        }
    }

    fn pods(self) -> &'static str {
        match self {
            IPv4 => "10.244.0.0/16",
            IPv6 => "fd00:10:244::/56",
        }
    }
}

pub(crate) async fn a_tenant_of_ipv6_alone_runs_pods(world: &World) -> Result<()> {
    runs_pods(world, "six", &[IPv6]).await
}

pub(crate) async fn a_tenant_of_both_families_and_ipv4_first_runs_pods(
    world: &World,
) -> Result<()> {
    runs_pods(world, "four-six", &[IPv4, IPv6]).await
}

pub(crate) async fn a_tenant_of_both_families_and_ipv6_first_runs_pods(
    world: &World,
) -> Result<()> {
    runs_pods(world, "six-four", &[IPv6, IPv4]).await
}

/// From the apply to a worker that joined at the address of the first family, its pods, their Services of each family by
/// address and by name, logs and exec.
async fn runs_pods(world: &World, name: &str, families: &[Family]) -> Result<()> {
    let begun = Instant::now();
    world.apply_tenant(name, spec(families)).await?;
    let tenant = world.ready(name).await?;
    let ready = begun.elapsed();
    reached_at_the_first(world, name, families).await?;
    world.lab.write_tenant_kubeconfig(name, name).await?;
    let worker = world.lab.add_worker(WORKER, world.lab.kubernetes()).await?;
    let kubeconfig = world.lab.paths().kubeconfig(name);
    world.lab.join(&worker, &kubeconfig).await?;
    let joined = begun.elapsed();
    world.lab.start_workload(name).await?;
    world.lab.check_workload(name).await?;
    has_addresses_in_order(&tenant, &worker, families).await?;
    for family in families {
        services_answer(world, &tenant, &[*family]).await?;
    }
    if families.len() > 1 {
        services_answer(world, &tenant, families).await?;
    }
    println!(
        "{name}: Ready after {:.1} s, its node after {:.1} s, all seen after {:.1} s",
        ready.as_secs_f64(),
        joined.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    world.lab.remove_worker(WORKER).await?;
    std::fs::remove_file(&kubeconfig).context("removing the tenant's kubeconfig")?;
    world.delete(name).await
}

fn spec(families: &[Family]) -> Value {
    let each = |of: fn(Family) -> &'static str| families.iter().map(|family| of(*family)).collect();
    let (names, services, pods): (Vec<_>, Vec<_>, Vec<_>) = (
        each(Family::name),
        each(Family::services),
        each(Family::pods),
    );
    let conntrack =
        json!([{ "op": "add", "path": "/conntrack", "value": { "maxPerCore": 0, "min": 0 } }]);
    json!({
        "controlPlane": { "service": { "ipFamilies": names } },
        "networkProfile": { "serviceCidrs": services, "podCidrs": pods },
        "addons": { "kubeProxy": { "configurationJSONPatches": conntrack } },
    })
}

/// The endpoint is the load balancer's address of the first family; pods are told all of them.
async fn reached_at_the_first(world: &World, name: &str, families: &[Family]) -> Result<()> {
    let tenant = Addressed::of(world, name).await?;
    let addresses = published(world, name).await?;
    let found: Vec<_> = addresses
        .iter()
        .map(|address| Family::of(*address))
        .collect();
    ensure!(
        found == families,
        "the load balancer publishes {addresses:?}"
    );
    let endpoint = SocketAddr::new(addresses[0], 6443).to_string();
    tenant.named_everywhere(&endpoint).await?;
    let other = format!(
        "kubernetes-{}",
        families[families.len() - 1].name().to_lowercase()
    );
    let names = ["kubernetes", &other];
    let slices: Vec<_> = names.into_iter().zip(addresses.chunks(1)).collect();
    tenant.slices(&slices).await?;
    for address in &addresses {
        tenant.serves(*address, &address.to_string()).await?;
    }
    Ok(())
}

/// Node and pods have an address of each family, the first one first, and no other.
async fn has_addresses_in_order(tenant: &Tenant, worker: &Host, families: &[Family]) -> Result<()> {
    let node = Api::<Node>::all(tenant.client.clone())
        .get(worker.name())
        .await?;
    let addresses = node.status.and_then(|status| status.addresses);
    let inside = addresses.into_iter().flatten();
    let inside = inside.filter(|address| address.type_ == "InternalIP");
    let inside: Vec<_> = inside.map(|address| address.address).collect();
    of_families(&inside, families).context("the node's addresses")?;
    let echo = ListParams::default().labels("app=echo");
    let pods: Api<Pod> = Api::default_namespaced(tenant.client.clone());
    for pod in pods.list(&echo).await?.items {
        let ips = pod.status.and_then(|status| status.pod_ips);
        let ips: Vec<_> = ips.into_iter().flatten().map(|ip| ip.ip).collect();
        of_families(&ips, families).context("a pod's addresses")?;
    }
    Ok(())
}

fn of_families(addresses: &[String], families: &[Family]) -> Result<()> {
    let parsed = addresses
        .iter()
        .map(|address| Ok(Family::of(address.parse()?)));
    let found: Vec<_> = parsed.collect::<Result<_>>()?;
    ensure!(found == families, "{addresses:?} are not {families:?}");
    Ok(())
}

/// A Service of these families is reached from a pod by each of its addresses, and by its name, which has only them.
async fn services_answer(world: &World, tenant: &Tenant, families: &[Family]) -> Result<()> {
    let names: Vec<_> = families.iter().map(|family| family.name()).collect();
    let policy = if families.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let name = format!("echo-{}", names.join("-").to_lowercase());
    let service = json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "app": "echo" },
            "ports": [{ "port": 80, "targetPort": "http" }],
            "ipFamilies": names, "ipFamilyPolicy": policy,
        },
    });
    let service: Service = serde_json::from_value(service)?;
    let services: Api<Service> = Api::default_namespaced(tenant.client.clone());
    let made = services.create(&PostParams::default(), &service).await?;
    let addresses = made.spec.and_then(|spec| spec.cluster_ips);
    let addresses = addresses.context("a Service without addresses")?;
    of_families(&addresses, families).context("the Service's addresses")?;
    let mut targets = vec![format!("{name}:80")];
    for address in addresses {
        targets.push(SocketAddr::new(address.parse()?, 80).to_string());
    }
    for target in targets {
        eventually(KNOWN, &format!("a pod reaches {target}"), async || {
            let connect = ["/agnhost", "connect", &target, "--timeout=3s"];
            let exec = [&["exec", "deployment/echo", "--"], &connect[..]].concat();
            world.lab.kubectl_with(&tenant.name, &exec).await.map(drop)
        })
        .await?;
    }
    Ok(())
}
