//! Endpoints and slices of `default/kubernetes`. The API servers run with
//! `--endpoint-reconciler-type=none`: what their own reconciler would write
//! (`pkg/controlplane/reconcilers`) is written here, with the address that nodes dial.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1 as discovery;
use stoker_api::tenant::Tenant;

use crate::object_meta::{namespaced, with_labels};
use crate::{Access, TenantObjects, component};

const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";
const PORT_NAME: &str = "https";

pub(crate) fn add(objects: &mut TenantObjects, tenant: &Tenant, access: &Access) {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = access
        .addresses
        .iter()
        .copied()
        .filter(is_accepted)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .partition(IpAddr::is_ipv4);
    let v6_first =
        matches!(tenant.network.service_cidrs.first(), Some(net) if net.addr().is_ipv6());
    // A slice's family cannot change, and the Service's own family is as fixed as its network:
    // that family's slice has the name that the API server uses.
    let families = if v6_first {
        [(SERVICE, "IPv6", v6), ("kubernetes-ipv4", "IPv4", v4)]
    } else {
        [(SERVICE, "IPv4", v4), ("kubernetes-ipv6", "IPv6", v6)]
    };
    let Some((_, _, first)) = families.iter().find(|(_, _, found)| !found.is_empty()) else {
        return;
    };
    objects.endpoints.push(endpoints(first, access.direct_port));
    for (name, family, addresses) in &families {
        if !addresses.is_empty() {
            objects
                .endpoint_slices
                .push(slice(name, family, addresses, access.direct_port));
        }
    }
}

/// What an API server takes as the address of an endpoint
/// (`pkg/apis/core/validation`, `ValidateEndpointIP`).
fn is_accepted(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Endpoints of one family, as those of every Service. The label keeps the controller manager from
/// making slices of them.
fn endpoints(addresses: &[IpAddr], port: u16) -> Endpoints {
    Endpoints {
        metadata: with_labels(
            namespaced(component::API_SERVER, NAMESPACE, SERVICE),
            &[("endpointslice.kubernetes.io/skip-mirror", "true")],
        ),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(
                addresses
                    .iter()
                    .map(|address| EndpointAddress {
                        ip: address.to_string(),
                        ..EndpointAddress::default()
                    })
                    .collect(),
            ),
            ports: Some(vec![EndpointPort {
                name: Some(PORT_NAME.to_owned()),
                port: port.into(),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

fn slice(name: &str, family: &str, addresses: &[IpAddr], port: u16) -> discovery::EndpointSlice {
    discovery::EndpointSlice {
        metadata: with_labels(
            namespaced(component::API_SERVER, NAMESPACE, name),
            &[("kubernetes.io/service-name", SERVICE)],
        ),
        address_type: family.to_owned(),
        endpoints: addresses
            .iter()
            .map(|address| discovery::Endpoint {
                addresses: vec![address.to_string()],
                conditions: Some(discovery::EndpointConditions {
                    ready: Some(true),
                    ..discovery::EndpointConditions::default()
                }),
                ..discovery::Endpoint::default()
            })
            .collect(),
        ports: Some(vec![discovery::EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(port.into()),
            protocol: Some("TCP".to_owned()),
            ..discovery::EndpointPort::default()
        }]),
    }
}
