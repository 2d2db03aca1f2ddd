//! Where the API server is reached.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use stoker_api::tenant::{API_SERVER_PORT, API_SERVER_PORT_NAME, TUNNEL_PORT_NAME, Tenant};
use stoker_api::v1alpha1::ServiceType;
use stoker_api::wake::PREFIX;

use crate::node_listener::{self, NodeListeners};
use crate::{routes, tunnel};

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
    /// Where the tenant's own pods reach the API server, the one that people dial first: addresses of
    /// one or both IP families, or names alone where a load balancer publishes nothing else.
    ///
    /// Pods go through their Service `kubernetes`, whose endpoints are addresses, and tell no name
    /// (SNI) by which an Ingress or a Gateway could route them. With listeners on nodes, these.
    pub direct: Vec<Host>,
    /// TCP port of the Service, for people; `None` until the cluster has assigned it.
    pub port: Option<u16>,
    /// What listeners on nodes lead to, where the tenant has them.
    pub listeners: Option<NodeListeners>,
    /// What agents of the tunnel dial; `None` without a tunnel, and until the cluster has assigned it.
    pub tunnel: Option<Endpoint>,
    /// The tenant's name under the operator's base domain, where it has one.
    pub stable_name: Option<String>,
    /// Addresses and names that the load balancer published.
    pub load_balancer: Vec<String>,
}

/// The name by which a connection wakes the tenant if it sleeps and may be woken so, where a gateway can tell by a name
/// whom it is for. It is the tenant's for good: kubeconfigs that ask for it outlive what is wanted now. Nodes, which dial all
/// the time, do not use it.
#[must_use]
pub(crate) fn waking_name(exposure: &Exposure) -> Option<String> {
    let stable_name = exposure.stable_name.as_ref();
    stable_name.map(|name| format!("{PREFIX}{name}"))
}

impl Exposure {
    /// TCP port at the addresses that the tenant's own pods dial; `None` until it is known.
    #[must_use]
    pub fn direct_port(&self) -> Option<u16> {
        if self.listeners.is_some() {
            return Some(API_SERVER_PORT);
        }
        self.port
    }
}

/// Reads where `tenant` is reached from its spec, its name under the operator's base domain if there
/// is one, and, as far as it exists, its Service.
///
/// People dial, of what there is, the hostname of its Ingress or Gateway, the stable name,
/// `networkProfile.advertiseAddress`, `networkProfile.address`, or what the cluster assigned: the
/// first address of the Service's first IP family. The port is that of the Ingress's hostname or of
/// the Gateway's listener, else `networkProfile.port`, else 6443; with `NodePort` and no port asked
/// for, the one that the cluster gave.
#[must_use]
pub fn exposure(tenant: &Tenant, stable_name: Option<&str>, service: Option<&Service>) -> Exposure {
    let cluster_ips = service.map(cluster_ips).unwrap_or_default();
    let ingress = service.map(ingress).unwrap_or_default();
    let default_port = Some(tenant.network.port.unwrap_or(API_SERVER_PORT));
    let (assigned, port) = match tenant.service.service_type {
        ServiceType::ClusterIP => {
            let hosts = cluster_ips.iter().copied().map(Host::Address);
            (hosts.collect(), default_port)
        }
        ServiceType::NodePort => (
            Vec::new(),
            tenant
                .network
                .port
                .or_else(|| service.and_then(|service| node_port(service, API_SERVER_PORT_NAME))),
        ),
        ServiceType::LoadBalancer => (in_order(&ingress, service), default_port),
    };
    let hosts = direct_hosts(tenant, assigned);
    let named = stable_name.map(|name| Host::Name(name.to_owned()));
    let host = named.or_else(|| hosts.first().cloned());
    let at = |host: Host, port| Endpoint { host, port };
    let dialed = host.clone().zip(port).map(|(host, port)| at(host, port));
    let gateway = stable_name.filter(|_| is_behind_gateway(tenant));
    let tunnel = host.zip(tunnel_port(tenant, service));
    let listeners = node_listener::build(tenant, gateway, &hosts, port);
    let direct = match &listeners {
        Some(_) => node_listener::addresses(tenant),
        None => hosts,
    };
    Exposure {
        cluster_ips,
        endpoint: routes::endpoint(tenant).or(dialed),
        direct,
        port,
        listeners,
        tunnel: tunnel.map(|(host, port)| at(host, port)),
        stable_name: stable_name.map(str::to_owned),
        load_balancer: ingress.into_iter().map(published).collect(),
    }
}

/// Whether the tenant's name, if it has one, must be that of Stoker's gateway: nothing else leads from outside to a
/// `ClusterIP`, unless an address was given that does.
fn is_behind_gateway(tenant: &Tenant) -> bool {
    let network = &tenant.network;
    tenant.service.service_type == ServiceType::ClusterIP
        && network.advertise_address.or(network.address).is_none()
}

/// The address that people asked for, and of those that the cluster assigned what it does not stand
/// for: the other IP family. Names only where there is no address.
fn direct_hosts(tenant: &Tenant, assigned: Vec<Host>) -> Vec<Host> {
    let network = &tenant.network;
    let asked = network.advertise_address.or(network.address);
    let is_address = |host: &Host| matches!(host, Host::Address(_));
    if asked.is_none() && !assigned.iter().any(is_address) {
        return assigned;
    }
    let other_family = |host: &Host| match (host, asked) {
        (Host::Address(found), Some(asked)) => found.is_ipv4() != asked.is_ipv4(),
        (Host::Address(_), None) => true,
        (Host::Name(_), _) => false,
    };
    let assigned = assigned.into_iter().filter(other_family);
    asked
        .map(Host::Address)
        .into_iter()
        .chain(assigned)
        .collect()
}

/// What a load balancer published, the Service's first IP family first: a load balancer need not
/// keep the order that people gave.
fn in_order(ingress: &[Host], service: Option<&Service>) -> Vec<Host> {
    let spec = service.and_then(|service| service.spec.as_ref());
    let families = spec.and_then(|spec| spec.ip_families.as_ref());
    let v6_first = families
        .and_then(|families| families.first())
        .map(|first| first == "IPv6");
    let mut hosts = ingress.to_vec();
    if let Some(v6_first) = v6_first {
        hosts.sort_by_key(|host| match host {
            Host::Address(address) => u8::from(address.is_ipv6() != v6_first),
            Host::Name(_) => 2,
        });
    }
    hosts
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

/// An Ingress leads to the API server alone, so agents go to the Service whatever people dial.
fn tunnel_port(tenant: &Tenant, service: Option<&Service>) -> Option<u16> {
    let asked = tunnel::asked(tenant)?;
    match tenant.service.service_type {
        ServiceType::NodePort => node_port(service?, TUNNEL_PORT_NAME),
        ServiceType::ClusterIP | ServiceType::LoadBalancer => u16::try_from(asked.server.port).ok(),
    }
}

fn node_port(service: &Service, name: &str) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(name))?;
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
