//! Which networks belong to the management cluster: control-plane pods must not reach them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// Networks of Nodes (their addresses), pods (`spec.podCIDRs`) and Services (`ServiceCIDR` objects),
/// merged, in a stable order.
#[must_use]
pub fn management_networks<'a>(
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
                    .map(|ip: std::net::IpAddr| IpNet::from(ip)),
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
}
