//! Which networks belong to the management cluster: control-plane pods must not reach them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt;

/// A Node is registered before it is given its pod networks: so young, it may yet name them.
const GRACE: Duration = Duration::from_mins(1);
/// Label and value of Nodes that run no pod of their own: virtual-kubelet's providers name no pod networks, ever.
const VIRTUAL: (&str, &str) = ("type", "virtual-kubelet");

/// What is known of the networks of the management cluster, and of the hosts of its pools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks {
    /// Control-plane pods must not reach these: disjoint and in ascending order.
    pub closed: Vec<IpNet>,
    /// Why there must be more of them than could be found out.
    pub unnamed: Option<String>,
}

/// What they are found out from.
#[derive(Default)]
pub struct Sources<'a> {
    /// As given on the command line: then neither Nodes nor `ServiceCIDR`s are asked.
    pub given: &'a [IpNet],
    /// All Nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All `ServiceCIDR`s.
    pub service_cidrs: Vec<Arc<ServiceCIDR>>,
    /// Where the API server is, which need not be a Node: a hosted control plane is not, and whoever dials the
    /// Service `kubernetes` reaches these addresses.
    pub api_server: Vec<Arc<EndpointSlice>>,
    /// The hosts of all pools: each is closed to every tenant but for the ports of its own pool.
    pub pools: Vec<IpAddr>,
    /// The addresses of the operator's own pod. They must be in one of the networks.
    pub operator: &'a [IpAddr],
    /// The addresses of control-plane pods, each with the pod's name. They too.
    pub pods: Vec<(String, IpAddr)>,
}

impl Networks {
    /// What follows from `sources`.
    #[must_use]
    pub fn found(sources: &Sources<'_>, now: Timestamp) -> Self {
        let mut networks = Self {
            closed: sources.networks(),
            unnamed: None,
        };
        if sources.given.is_empty() {
            networks.unnamed = sources
                .nameless(now)
                .or_else(|| sources.stranger(&networks));
        }
        networks
    }

    /// Whether control-plane pods are kept away from this address.
    #[must_use]
    pub fn covers(&self, ip: IpAddr) -> bool {
        let after = self
            .closed
            .partition_point(|network| network.network() <= ip);
        let candidate = after.checked_sub(1).and_then(|at| self.closed.get(at));
        candidate.is_some_and(|network| network.contains(&ip))
    }
}

impl Sources<'_> {
    /// After how long the youngest Node that may yet name its networks is no longer young.
    #[must_use]
    pub fn grace_left(&self, now: Timestamp) -> Option<Duration> {
        let ages = self.nodes.iter().filter(|node| names_no_pods(node));
        let left = ages.filter_map(|node| GRACE.checked_sub(age(node, now)?));
        left.filter(|left| !left.is_zero()).min()
    }

    /// A Node that will not name its pod networks any more.
    fn nameless(&self, now: Timestamp) -> Option<String> {
        let old = |node: &Node| age(node, now).is_none_or(|age| age >= GRACE);
        let nodes = self.nodes.iter();
        let nameless = nodes.filter(|node| names_no_pods(node) && old(node));
        let name = nameless.map(|node| node.name_any()).min()?;
        Some(format!("Node {name} does not name its pod networks"))
    }

    /// A pod in none of the networks.
    fn stranger(&self, networks: &Networks) -> Option<String> {
        let own = self.operator.iter().find(|ip| !networks.covers(**ip));
        let own = own.map(|ip| ("the operator's own pod".to_owned(), *ip));
        let others = || {
            let pods = self.pods.iter();
            let (pod, ip) = pods.filter(|(_, ip)| !networks.covers(*ip)).min()?;
            Some((format!("the pod {pod}"), *ip))
        };
        let (pod, ip) = own.or_else(others)?;
        Some(format!(
            "{pod} has the address {ip}, which is in none of the networks that the Nodes name"
        ))
    }

    /// Networks of Nodes (their addresses), pods (`spec.podCIDRs`) and Services (`ServiceCIDR` objects), or those given,
    /// the API server's addresses and the pools'; merged, in a stable order.
    fn networks(&self) -> Vec<IpNet> {
        let mut found: BTreeSet<IpNet> = self.given.iter().copied().collect();
        for node in &self.nodes {
            let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
            found.extend(parsed(cidrs.into_iter().flatten()));
            let status = node.status.as_ref();
            let addresses = status.and_then(|status| status.addresses.as_ref());
            let addresses = addresses.into_iter().flatten();
            found.extend(hosts(addresses.map(|address| &address.address)));
        }
        for cidr in &self.service_cidrs {
            let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
            found.extend(parsed(cidrs.into_iter().flatten()));
        }
        for slice in &self.api_server {
            let endpoints = slice.endpoints.iter();
            found.extend(hosts(endpoints.flat_map(|endpoint| &endpoint.addresses)));
        }
        found.extend(self.pools.iter().copied().map(IpNet::from));
        let mut networks = IpNet::aggregate(&found.into_iter().collect());
        networks.sort_unstable();
        networks
    }
}

fn parsed<'a>(cidrs: impl Iterator<Item = &'a String>) -> impl Iterator<Item = IpNet> {
    cidrs.filter_map(|cidr| cidr.parse::<IpNet>().ok().map(|cidr| cidr.trunc()))
}

fn hosts<'a>(addresses: impl Iterator<Item = &'a String>) -> impl Iterator<Item = IpNet> {
    addresses.filter_map(|address| Some(IpNet::from(address.parse::<IpAddr>().ok()?)))
}

/// Whether pods may have addresses there that nobody names.
fn names_no_pods(node: &Node) -> bool {
    let virtual_kubelet = node
        .labels()
        .get(VIRTUAL.0)
        .is_some_and(|kind| kind == VIRTUAL.1);
    let spec = node.spec.as_ref();
    let cidrs = spec.and_then(|spec| spec.pod_cidrs.as_ref());
    !virtual_kubelet && cidrs.is_none_or(Vec::is_empty)
}

/// How long ago the Node was registered. Of a clock that differs from ours only so much is believed: an object from
/// the future is as old as it is far away.
fn age(node: &Node, now: Timestamp) -> Option<Duration> {
    let created = node.metadata.creation_timestamp.as_ref()?;
    Some(now.duration_since(created.0).unsigned_abs())
}

#[cfg(test)]
mod tests;
