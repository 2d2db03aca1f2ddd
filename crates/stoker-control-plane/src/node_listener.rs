//! The listeners on a tenant's nodes (`spec.addons.nodeListener`): where they are, and what they lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stoker_api::tenant::Tenant;

use crate::exposure::{Endpoint, Host};

/// Of the block that IANA keeps for protocols, and nobody's there.
const IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 64);
/// Of a random network for local use (RFC 4193).
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x746f, 0x6b72, 0, 0, 0, 0, 1);

/// What the listeners lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeListeners {
    /// What they dial; none until the cluster has assigned it.
    pub servers: Vec<Endpoint>,
    /// The name that they tell a gateway; absent where they dial API servers.
    pub name: Option<String>,
}

/// What they lead to where `tenant` asks for them: the `gateway`'s name for the tenant if it is behind one, else the `hosts`
/// that its pods would dial.
pub(crate) fn build(
    tenant: &Tenant,
    gateway: Option<&str>,
    hosts: &[Host],
    port: Option<u16>,
) -> Option<NodeListeners> {
    tenant.addons.node_listener.as_ref()?;
    let hosts = match gateway {
        Some(name) => vec![Host::Name(name.to_owned())],
        None => hosts.to_vec(),
    };
    let at = |host| Some(Endpoint { host, port: port? });
    Some(NodeListeners {
        servers: hosts.into_iter().filter_map(at).collect(),
        name: gateway.map(str::to_owned),
    })
}

/// Where they are: one address for each IP family of the tenant's Services.
pub(crate) fn addresses(tenant: &Tenant) -> Vec<Host> {
    let asked = tenant.addons.node_listener.iter();
    let asked = asked.flat_map(|listener| &listener.addresses);
    let asked: Vec<IpAddr> = asked.filter_map(|text| text.parse().ok()).collect();
    let of_family = |ipv4: bool| {
        let asked = asked.iter().find(|address| address.is_ipv4() == ipv4);
        let default = if ipv4 { IPV4.into() } else { IPV6.into() };
        Host::Address(asked.copied().unwrap_or(default))
    };
    let networks = tenant.network.service_cidrs.iter();
    networks
        .map(|network| of_family(network.addr().is_ipv4()))
        .collect()
}
