//! Where the API server is reached.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_api::v1alpha1::ServiceType;

use crate::service::SERVICE_PORT_NAME;

/// The host part of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A DNS name, as some load balancers publish.
    Name(String),
}

impl fmt::Display for Host {
    /// IPv6 in brackets, as in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What nodes and people dial; `Display` gives `host:port` with IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or name.
    pub host: Host,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What is known about where the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Addresses of the Service inside the management cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// What nodes and people dial; `None` until the cluster has assigned it.
    pub endpoint: Option<Endpoint>,
    /// Addresses and names that the load balancer published.
    pub load_balancer: Vec<String>,
}

/// Reads where `tenant` is reached from its spec and, as far as it exists, its Service.
///
/// `networkProfile.address` wins over what the cluster assigns. The port is
/// `networkProfile.port`, else 6443; with `NodePort` and no port asked for, the one that the
/// cluster gave.
#[must_use]
pub fn exposure(tenant: &Tenant, service: Option<&Service>) -> Exposure {
    let cluster_ips = service.map(cluster_ips).unwrap_or_default();
    let ingress = service.map(ingress).unwrap_or_default();
    let asked = tenant.network.address.map(Host::Address);
    let default_port = Some(tenant.network.port.unwrap_or(API_SERVER_PORT));
    let (host, port) = match tenant.service.service_type {
        ServiceType::ClusterIP => (
            asked.or_else(|| cluster_ips.first().copied().map(Host::Address)),
            default_port,
        ),
        ServiceType::NodePort => (
            asked,
            tenant.network.port.or_else(|| service.and_then(node_port)),
        ),
        ServiceType::LoadBalancer => (asked.or_else(|| ingress.first().cloned()), default_port),
    };
    Exposure {
        cluster_ips,
        endpoint: host.zip(port).map(|(host, port)| Endpoint { host, port }),
        load_balancer: ingress.into_iter().map(published).collect(),
    }
}

/// Without the brackets that a URL needs.
fn published(host: Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name,
    }
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let all = spec.cluster_ips.iter().flatten();
    let first = spec
        .cluster_ip
        .iter()
        .filter(|_| spec.cluster_ips.is_none());
    all.chain(first)
        .filter_map(|address| address.parse().ok())
        .collect()
}

fn node_port(service: &Service) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(SERVICE_PORT_NAME))?;
    u16::try_from(port.node_port?)
        .ok()
        .filter(|port| *port != 0)
}

fn ingress(service: &Service) -> Vec<Host> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_ref());
    entries
        .into_iter()
        .flatten()
        .filter_map(ingress_host)
        .collect()
}

fn ingress_host(entry: &LoadBalancerIngress) -> Option<Host> {
    let address = entry
        .ip
        .as_deref()
        .and_then(|ip| ip.parse().ok())
        .map(Host::Address);
    let name = entry
        .hostname
        .clone()
        .filter(|name| !name.is_empty())
        .map(Host::Name);
    address.or(name)
}
