//! What the objects on the management side follow from, in one pass.

use std::net::IpAddr;

use ipnet::IpNet;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{Exposure, StoragePeer};

use super::state::Inputs;
use super::store::Place;
use crate::context::Context;

pub(super) fn inputs(tenant: &Tenant, exposure: Exposure, place: &Place, ctx: &Context) -> Inputs {
    let peers = place.open.peers.list();
    let own: Vec<IpAddr> = peers.iter().filter_map(StoragePeer::address).collect();
    let networks = ctx.management_networks.borrow().closed.clone();
    Inputs {
        generation: tenant.generation,
        replicas: tenant.replicas,
        exposure,
        peers,
        endpoints: place.open.credentials.endpoints.clone(),
        pool_authority: place.open.credentials.authority_certificate.clone(),
        management_networks: closed(networks, &own),
    }
}

/// The networks that are closed to control-plane pods, and the hosts of their own pool: that these are told with the others a
/// moment later changes nothing.
fn closed(mut networks: Vec<IpNet>, own: &[IpAddr]) -> Vec<IpNet> {
    networks.extend(own.iter().copied().map(IpNet::from));
    let mut closed = IpNet::aggregate(&networks);
    closed.sort_unstable();
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_all_hear_of_the_hosts_of_a_tenants_own_pool_is_no_news_to_it() {
        let networks = |list: &[&str]| -> Vec<IpNet> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let own: [IpAddr; 2] = ["198.51.100.7", "10.0.0.9"].map(|text| text.parse().unwrap());
        let alone = closed(networks(&["10.0.0.0/8"]), &own);
        assert_eq!(alone, networks(&["10.0.0.0/8", "198.51.100.7/32"]));
        let told = closed(networks(&["10.0.0.0/8", "198.51.100.7/32"]), &own);
        assert_eq!(told, alone);
    }
}
