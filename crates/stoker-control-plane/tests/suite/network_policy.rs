//! Where control-plane pods may go, asked address by address.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use stoker_control_plane::{PodPort, StoragePeer};

use crate::scenario::{cluster_ip, networks};

fn policy(management: &[IpNet]) -> NetworkPolicySpec {
    let mut scenario = cluster_ip();
    scenario.management_networks = management.to_vec();
    scenario.guards().network_policy.spec.unwrap()
}

/// Whether some rule lets a TCP connection out to an address outside the cluster's pods.
fn may_reach(policy: &NetworkPolicySpec, address: &str, port: i32) -> bool {
    let address: IpAddr = address.parse().unwrap();
    policy
        .egress
        .iter()
        .flatten()
        .any(|rule| allows(rule, address, port))
}

fn allows(rule: &NetworkPolicyEgressRule, address: IpAddr, port: i32) -> bool {
    let port_allowed = rule.ports.as_ref().is_none_or(|ports| {
        ports
            .iter()
            .any(|allowed| allowed.port == Some(IntOrString::Int(port)))
    });
    let inside = |network: &String| network.parse::<IpNet>().unwrap().contains(&address);
    port_allowed
        && rule
            .to
            .as_ref()
            .unwrap()
            .iter()
            .filter_map(|peer| peer.ip_block.as_ref())
            .any(|block| inside(&block.cidr) && !block.except.iter().flatten().any(inside))
}

#[test]
fn the_pool_and_the_world_are_reached_and_management_is_not() {
    let policy = policy(&networks(&[
        "10.100.0.0/16",
        "192.0.2.0/24",
        "fd00:100::/48",
    ]));
    for (address, port) in [
        ("192.0.2.10", 2379),
        ("2001:db8::10", 2379),
        ("198.51.100.7", 10250),
        ("10.99.255.255", 10250),
        ("2001:db8:7::1", 443),
    ] {
        assert!(may_reach(&policy, address, port), "{address}:{port}");
    }
    for (address, port) in [
        ("192.0.2.10", 2380),
        ("2001:db8::10", 2380),
        ("2001:db8::10", 10250),
        ("192.0.2.10", 6443),
        ("192.0.2.11", 2379),
        ("10.100.0.1", 443),
        ("10.100.200.3", 6443),
        ("fd00:100::1", 443),
        ("127.0.0.1", 10250),
        ("::1", 10250),
        ("169.254.169.254", 80),
        ("fe80::1", 80),
        ("224.0.0.1", 80),
        ("ff02::1", 80),
    ] {
        assert!(!may_reach(&policy, address, port), "{address}:{port}");
    }
}

#[test]
fn only_the_api_server_is_reached_and_only_the_tenants_pods_are_selected() {
    let policy = policy(&[]);
    assert_eq!(policy.policy_types.unwrap(), ["Ingress", "Egress"]);
    let selector = policy.pod_selector.unwrap().match_labels.unwrap();
    assert_eq!(
        selector,
        [("stoker.dev/name".to_owned(), "gpu-17".to_owned())].into()
    );
    let ingress = policy.ingress.unwrap();
    assert_eq!(ingress.len(), 1);
    let ports = ingress[0].ports.as_ref().unwrap();
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].port, Some(IntOrString::Int(6443)));
}

#[test]
fn a_family_that_is_management_as_a_whole_is_closed() {
    for whole in ["0.0.0.0/0", "::/0"] {
        let policy = policy(&networks(&[whole]));
        let all = serde_json::to_string(&policy).unwrap();
        assert!(!all.contains(whole), "{all}");
    }
    let policy = policy(&networks(&["0.0.0.0/1", "128.0.0.0/1", "::/0"]));
    assert!(!may_reach(&policy, "198.51.100.7", 443));
    for rule in policy.egress.unwrap() {
        assert!(
            !rule.to.unwrap().is_empty(),
            "a rule without peers allows everything"
        );
    }
}

#[test]
fn pods_without_labels_are_not_all_pods_of_their_namespace() {
    let peer = StoragePeer::Pods {
        namespace: "etcd".to_owned(),
        labels: [].into(),
        port: PodPort::Number(2379),
    };
    let scenario = cluster_ip().pool(&["192.0.2.1:2379"], vec![peer]);
    let policy = serde_json::to_string(&scenario.guards().network_policy).unwrap();
    assert!(
        !policy.contains("2379") && !policy.contains("podSelector\":{}"),
        "{policy}"
    );
}

#[test]
fn cluster_dns_is_reached_only_for_a_pool_known_by_names() {
    let shown = |endpoints: &[&str]| {
        let peer = StoragePeer::Pods {
            namespace: "etcd".to_owned(),
            labels: [].into(),
            port: PodPort::Number(2379),
        };
        let scenario = cluster_ip().pool(endpoints, vec![peer]);
        serde_json::to_string(&scenario.guards().network_policy).unwrap()
    };
    assert!(!shown(&["192.0.2.1:2379", "[2001:db8::1]:2379"]).contains("kube-dns"));
    assert!(shown(&["192.0.2.1:2379", "etcd.example:2379"]).contains("kube-dns"));
}

proptest! {
    /// The API server of the management cluster refuses an exception that is not strictly inside
    /// its block, and a policy that does not say what it was given would leave a hole.
    #[test]
    fn any_management_networks_give_a_valid_policy_that_closes_them(
        list in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
        six in prop::collection::vec((any::<u128>(), 0_u8..=128), 0..12),
    ) {
        let four = list.iter().map(|&(address, length)| {
            IpNet::new(IpAddr::from(address.to_be_bytes()), length).unwrap()
        });
        let six = six.iter().map(|&(address, length)| {
            IpNet::new(IpAddr::from(address.to_be_bytes()), length).unwrap()
        });
        let management: Vec<IpNet> = four.chain(six).collect();
        let policy = policy(&management);
        for rule in policy.egress.iter().flatten().filter(|rule| rule.ports.is_none()) {
            for peer in rule.to.iter().flatten() {
                let block = peer.ip_block.as_ref().unwrap();
                let all: IpNet = block.cidr.parse().unwrap();
                for except in block.except.iter().flatten() {
                    let except: IpNet = except.parse().unwrap();
                    prop_assert!(all.contains(&except) && except.prefix_len() > all.prefix_len());
                    prop_assert_eq!(except, except.trunc());
                }
            }
        }
        for network in management {
            for address in [network.network(), network.broadcast()] {
                prop_assert!(!may_reach(&policy, &address.to_string(), 443));
            }
        }
    }
}
