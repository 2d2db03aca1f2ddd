//! What a tenant's control-plane pods may reach and be reached on.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};

use crate::metadata::{CONTROL_PLANE, metadata, pod_selector};
use crate::{Names, PodPort, StoragePeer, tunnel};

/// Label that every namespace has, with its name (`kube-apiserver` sets it).
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Never reached from a control-plane pod, whatever the management networks are: loopback,
/// link-local (cloud metadata services live there) and multicast.
const NEVER: [&str; 6] = [
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// The policy of `tenant`'s pods.
///
/// In: the API server's port, from anywhere, since nodes and people are anywhere; who they are is
/// for the API server to find out. kube-controller-manager's and kube-scheduler's ports are for the
/// kubelet's probes, which a policy never blocks.
///
/// Out: a tenant's administrator can make the API server dial any address (webhooks, aggregated
/// APIs, `nodes/proxy` with a forged Node), so this is the boundary towards the management cluster:
/// the pool's peers on their ports, and everything outside the management networks, where the
/// tenant's nodes are. Nothing else of management, not even cluster DNS unless the pool, issuers of
/// tokens, a server for audit events or that of a KMS plugin are known by names.
pub(crate) fn network_policy(
    tenant: &Tenant,
    endpoints: &[String],
    peers: &[StoragePeer],
    closed: &BTreeSet<IpNet>,
) -> NetworkPolicy {
    let mut egress = pool(peers);
    egress.extend((are_names(endpoints) || dials_names(tenant)).then(cluster_dns));
    // With a tunnel too: webhooks by URL are dialled from here (`k8s.io/apiserver`, egress `controlplane`).
    egress.extend(outside(closed));
    NetworkPolicy {
        metadata: metadata(tenant, &Names::of(tenant).deployment, CONTROL_PLANE),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector(tenant)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: None,
                ports: Some(open_ports(tenant)),
            }]),
            egress: Some(egress),
        }),
    }
}

/// The API server's port, and those that people had the Service lead to.
fn open_ports(tenant: &Tenant) -> Vec<NetworkPolicyPort> {
    let mut ports = vec![tcp(int(API_SERVER_PORT))];
    ports.extend(tunnel::asked(tenant).map(|_| tcp(int(tunnel::PORT))));
    let asked = tenant.service.additional_ports.iter();
    ports.extend(asked.map(|asked| NetworkPolicyPort {
        port: Some(asked.target_port.clone()),
        protocol: Some(asked.protocol.name().to_owned()),
        ..NetworkPolicyPort::default()
    }));
    ports
}

fn pool(peers: &[StoragePeer]) -> Vec<NetworkPolicyEgressRule> {
    // An empty selector would open the whole namespace.
    let is_narrow = |peer: &&StoragePeer| !matches!(peer, StoragePeer::Pods { labels, .. } if labels.is_empty());
    let peers: BTreeSet<_> = peers.iter().filter(is_narrow).collect();
    peers
        .into_iter()
        .map(|peer| {
            let (to, port) = match peer {
                StoragePeer::Address { ip, port } => {
                    (block(IpNet::from(*ip), Vec::new()), tcp(int(*port)))
                }
                StoragePeer::Pods {
                    namespace: name,
                    labels,
                    port,
                } => {
                    let port = match port {
                        PodPort::Number(number) => int(*number),
                        PodPort::Name(name) => IntOrString::String(name.clone()),
                    };
                    let pods = LabelSelector {
                        match_labels: Some(labels.clone()),
                        ..LabelSelector::default()
                    };
                    (namespace(name, pods), tcp(port))
                }
            };
            NetworkPolicyEgressRule {
                to: Some(vec![to]),
                ports: Some(vec![port]),
            }
        })
        .collect()
}

/// Whether an endpoint of the pool must be looked up.
fn are_names(endpoints: &[String]) -> bool {
    endpoints.iter().any(|endpoint| {
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |(host, _)| host);
        host.trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_err()
    })
}

/// Whether the API server itself looks up names, which its tenant's administrator does not choose.
fn dials_names(tenant: &Tenant) -> bool {
    !tenant.authentication.jwt.is_empty()
        || tenant.audit.webhook.is_some()
        || tenant.encryption.kms.is_some()
}

fn cluster_dns() -> NetworkPolicyEgressRule {
    let pods = LabelSelector {
        match_labels: Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into()),
        ..LabelSelector::default()
    };
    NetworkPolicyEgressRule {
        to: Some(vec![namespace("kube-system", pods)]),
        ports: Some(vec![on(int(53), "UDP"), tcp(int(53))]),
    }
}

/// The management networks, which the hosts of all pools are among, and the hosts of this pool, whose other ports are nobody's business.
pub(crate) fn closed(management: &[IpNet], peers: &[StoragePeer]) -> BTreeSet<IpNet> {
    let never = NEVER.iter().filter_map(|network| network.parse().ok());
    let pool = peers.iter().filter_map(StoragePeer::address);
    let pool = pool.map(IpNet::from);
    let closed = management.iter().map(IpNet::trunc).chain(never).chain(pool);
    let closed: Vec<IpNet> = closed.collect();
    IpNet::aggregate(&closed).into_iter().collect()
}

/// Everything else, per IP family.
/// A family that is management as a whole gets no rule: an exception must be smaller than what it is taken from.
fn outside(closed: &BTreeSet<IpNet>) -> Option<NetworkPolicyEgressRule> {
    let to: Vec<_> = ["0.0.0.0/0", "::/0"]
        .iter()
        .filter_map(|all| all.parse::<IpNet>().ok())
        .filter(|all| !closed.contains(all))
        .map(|all| {
            let same_family = closed.iter().filter(|network| all.contains(*network));
            block(all, same_family.map(ToString::to_string).collect())
        })
        .collect();
    // A rule without peers would allow everything.
    (!to.is_empty()).then_some(NetworkPolicyEgressRule {
        to: Some(to),
        ports: None,
    })
}

fn block(network: IpNet, except: Vec<String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: network.to_string(),
            except: (!except.is_empty()).then_some(except),
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn namespace(name: &str, pods: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_NAME.to_owned(), name.to_owned())].into()),
            ..LabelSelector::default()
        }),
        pod_selector: Some(pods),
        ..NetworkPolicyPeer::default()
    }
}

fn int(port: u16) -> IntOrString {
    IntOrString::Int(i32::from(port))
}

fn tcp(port: IntOrString) -> NetworkPolicyPort {
    on(port, "TCP")
}

fn on(port: IntOrString, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(port),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}
