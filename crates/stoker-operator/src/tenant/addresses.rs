//! The addresses that the tenant's own pods dial, where a load balancer publishes only a name.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use stoker_control_plane::{Exposure, Host};
use stoker_kube::ObjectKey;

use super::error::Error;

pub(super) fn is_name(host: &Host) -> bool {
    matches!(host, Host::Name(_))
}

/// All addresses, those behind names by a look into DNS.
///
/// # Errors
/// A name has no address, or nobody answers.
pub(super) async fn resolve(exposure: &Exposure) -> Result<Vec<IpAddr>, Error> {
    let mut found = Vec::new();
    for host in &exposure.direct {
        match host {
            Host::Address(ip) => found.push(*ip),
            Host::Name(name) => {
                let addresses = tokio::net::lookup_host((name.as_str(), 0)).await;
                let addresses = addresses.map_err(|source| Error::Resolve {
                    endpoint: name.clone(),
                    source,
                })?;
                found.extend(addresses.map(|address| address.ip()));
            }
        }
    }
    Ok(found)
}

/// What the tenant's pods find its API server by.
pub(super) fn endpoints_keys() -> [ObjectKey; 4] {
    let slice = |name| ObjectKey::of::<EndpointSlice>(Some("default"), name);
    [
        ObjectKey::of::<Endpoints>(Some("default"), "kubernetes"),
        slice("kubernetes"),
        slice("kubernetes-ipv4"),
        slice("kubernetes-ipv6"),
    ]
}
