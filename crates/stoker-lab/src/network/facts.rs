//! What the policy compiler needs to know of pods and namespaces.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use kube::ResourceExt as _;

/// Labels of every namespace by its name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// Addresses that CNI plugins gave to pods of this host.
pub type CniAddresses = BTreeMap<PodKey, Vec<IpAddr>>;

/// One pod, told from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
}

impl PodKey {
    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        }
    }
}

/// A `containerPort` with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name, unique in the pod per protocol.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port's number.
    pub number: u16,
}

/// A pod that has an address of its own and has not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs on this host, so that policies are enforced on it here.
    pub local: bool,
    /// Its addresses, one or one per family.
    pub addresses: Vec<IpAddr>,
    /// The named ports of its containers.
    pub ports: Vec<NamedPort>,
}

impl PodFacts {
    /// Reads the facts of all pods, sorted by namespace and name.
    ///
    /// Left out are pods of the host network, which count as the node (networking.k8s.io/v1 leaves
    /// them to the implementation), finished pods, whose address may be another's by now, and pods
    /// without an address. An address that the API does not show yet is taken from `early`. Where two
    /// pods show one address, the younger has it.
    pub fn collect<P: Borrow<Pod>>(pods: &[P], node_name: &str, early: &CniAddresses) -> Vec<Self> {
        let mut pods: Vec<&Pod> = pods
            .iter()
            .map(Borrow::borrow)
            .filter(|pod| has_own_network(pod))
            .collect();
        pods.sort_by_key(|pod| {
            let created = pod.creation_timestamp().map(|time| time.0);
            (created, pod.namespace(), pod.name_any())
        });
        let mut owner = HashMap::new();
        for (index, pod) in pods.iter().enumerate() {
            owner.extend(
                addresses(pod, early)
                    .into_iter()
                    .map(|address| (address, index)),
            );
        }
        let mut facts: Vec<Self> = pods
            .iter()
            .enumerate()
            .map(|(index, pod)| {
                let mut addresses = addresses(pod, early);
                addresses.retain(|address| owner.get(address) == Some(&index));
                Self::of(pod, node_name, addresses)
            })
            .filter(|facts| !facts.addresses.is_empty())
            .collect();
        facts.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        facts
    }

    fn of(pod: &Pod, node_name: &str, addresses: Vec<IpAddr>) -> Self {
        let spec = pod.spec.as_ref();
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            labels: pod.labels().clone(),
            local: spec.and_then(|spec| spec.node_name.as_deref()) == Some(node_name),
            addresses,
            ports: spec.map(named_ports).unwrap_or_default(),
        }
    }

    /// The number behind a named port of this pod, as its first container that declares it says.
    pub(super) fn port(&self, name: &str, protocol: &str) -> Option<u16> {
        self.ports
            .iter()
            .find(|port| port.name == name && port.protocol == protocol)
            .map(|port| port.number)
    }
}

/// Whether a pod of this host has no address in the API yet, so that CNI results are worth reading.
pub(super) fn local_pods_waiting<P: Borrow<Pod>>(pods: &[P], node_name: &str) -> bool {
    pods.iter().map(Borrow::borrow).any(|pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node == Some(node_name) && has_own_network(pod) && reported_addresses(pod).is_empty()
    })
}

/// Reads the labels of all namespaces.
#[must_use]
pub fn namespace_labels<N: Borrow<Namespace>>(namespaces: &[N]) -> NamespaceLabels {
    namespaces
        .iter()
        .map(Borrow::borrow)
        .map(|namespace: &Namespace| (namespace.name_any(), namespace.labels().clone()))
        .collect()
}

fn has_own_network(pod: &Pod) -> bool {
    let host_network = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or_default();
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !host_network && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn addresses(pod: &Pod, early: &CniAddresses) -> Vec<IpAddr> {
    let reported = reported_addresses(pod);
    if reported.is_empty() {
        return early.get(&PodKey::of(pod)).cloned().unwrap_or_default();
    }
    reported
}

fn reported_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = all
        .chain(status.pod_ip.as_deref())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let containers = spec.containers.iter();
    containers
        .chain(spec.init_containers.iter().flatten())
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone()?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                number: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}
