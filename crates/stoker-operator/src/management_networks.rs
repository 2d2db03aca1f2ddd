//! Which networks belong to the management cluster: control-plane pods must not reach them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt;

/// What is known of the networks of the management cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks {
    /// Control-plane pods must not reach these.
    pub closed: Vec<IpNet>,
    /// Why there must be more of them than could be found out.
    pub unnamed: Option<String>,
}

impl Networks {
    /// As given on the command line.
    #[must_use]
    pub fn given(closed: Vec<IpNet>) -> Self {
        Self {
            closed,
            unnamed: None,
        }
    }

    /// As found out from the cluster. `pod` is the address of a pod of this cluster: it must be in one of them.
    #[must_use]
    pub fn found<'a>(
        nodes: impl IntoIterator<Item = &'a Node> + Clone,
        service_cidrs: impl IntoIterator<Item = &'a ServiceCIDR>,
        pod: Option<IpAddr>,
    ) -> Self {
        let closed = management_networks(nodes.clone(), service_cidrs);
        let names_none = |node: &&Node| {
            let spec = node.spec.as_ref();
            spec.and_then(|spec| spec.pod_cidrs.as_ref())
                .is_none_or(Vec::is_empty)
        };
        let nameless = nodes.into_iter().find(names_none);
        let outside = pod.filter(|pod| !closed.iter().any(|network| network.contains(pod)));
        let unnamed = match (nameless, outside) {
            (Some(node), _) => Some(format!(
                "Node {} does not name its pod networks",
                node.name_any()
            )),
            (None, Some(pod)) => Some(format!(
                "the operator's own pod has the address {pod}, which is in none of the networks that the Nodes name"
            )),
            (None, None) => None,
        };
        Self { closed, unnamed }
    }
}

/// Networks of Nodes (their addresses), pods (`spec.podCIDRs`) and Services (`ServiceCIDR` objects),
/// merged, in a stable order.
fn management_networks<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    service_cidrs: impl IntoIterator<Item = &'a ServiceCIDR>,
) -> Vec<IpNet> {
    let mut found = BTreeSet::new();
    for node in nodes {
        let spec = node.spec.as_ref();
        let pods = spec
            .and_then(|spec| spec.pod_cidrs.as_ref())
            .into_iter()
            .flatten();
        found.extend(pods.filter_map(|cidr| cidr.parse::<IpNet>().ok()));
        let addresses = node
            .status
            .as_ref()
            .and_then(|status| status.addresses.as_ref());
        for address in addresses.into_iter().flatten() {
            found.extend(
                address
                    .address
                    .parse()
                    .ok()
                    .map(|ip: IpAddr| IpNet::from(ip)),
            );
        }
    }
    for cidr in service_cidrs {
        let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
        found.extend(
            cidrs
                .into_iter()
                .flatten()
                .filter_map(|cidr| cidr.parse::<IpNet>().ok()),
        );
    }
    IpNet::aggregate(&found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidr: &str, address: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "n" },
            "spec": { "podCIDRs": [cidr] },
            "status": { "addresses": [
                { "type": "InternalIP", "address": address },
                { "type": "Hostname", "address": "n" },
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_pods_and_services_are_all_covered() {
        let services: ServiceCIDR = serde_json::from_value(
            serde_json::json!({ "metadata": {}, "spec": { "cidrs": ["10.112.0.0/16"] } }),
        )
        .unwrap();
        let nodes = [
            node("10.100.0.0/24", "192.0.2.1"),
            node("10.100.1.0/24", "192.0.2.2"),
        ];
        let networks = management_networks(&nodes, [&services]);
        let text: Vec<_> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "10.100.0.0/23",
                "10.112.0.0/16",
                "192.0.2.1/32",
                "192.0.2.2/32"
            ]
        );
    }

    #[test]
    fn networks_that_nobody_names_are_noticed() {
        let pod = |text: &str| Some(text.parse().unwrap());
        let named = [node("10.100.0.0/24", "192.0.2.1")];
        let unnamed = |nodes: &[Node], pod| Networks::found(nodes, [], pod).unnamed;
        assert_eq!(unnamed(&named, None), None);
        assert_eq!(unnamed(&named, pod("10.100.0.9")), None);
        assert_eq!(
            unnamed(&named, pod("192.0.2.1")),
            None,
            "the host's network"
        );
        let elsewhere = unnamed(&named, pod("10.200.0.9")).unwrap();
        assert!(elsewhere.contains("10.200.0.9"), "{elsewhere}");
        let mut nameless = named;
        nameless[0].spec = None;
        let reason = unnamed(&nameless, pod("192.0.2.1")).unwrap();
        assert_eq!(reason, "Node n does not name its pod networks");
    }
}
