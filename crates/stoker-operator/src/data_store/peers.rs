//! Where control-plane pods reach a pool, as their `NetworkPolicy` must say it.

use std::net::IpAddr;

use stoker_control_plane::StoragePeer;

/// Peers of `endpoints` (`host:port`): an address as it is, a Service name
/// (`name.namespace.svc…`) as its namespace, any other name by its addresses. Addresses of names only
/// add up, on top of those already `known`: a lookup that fails, or answers another part of a set each
/// time, must not cut running tenants off.
pub async fn peers(endpoints: &[String], known: Vec<StoragePeer>) -> Vec<StoragePeer> {
    let mut peers = known;
    for endpoint in endpoints {
        let Some((host, port)) = endpoint.rsplit_once(':') else {
            continue;
        };
        let Ok(port) = port.parse::<u16>() else {
            continue;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            peers.push(StoragePeer::Address { ip, port });
        } else if let Some(name) = service_namespace(host) {
            peers.push(StoragePeer::Namespace { name, port });
        } else if let Ok(found) = tokio::net::lookup_host((host, port)).await {
            peers.extend(found.map(|address| StoragePeer::Address {
                ip: address.ip(),
                port,
            }));
        }
    }
    peers.sort();
    peers.dedup();
    peers
}

/// The namespace in `pod.service.namespace.svc[.domain]` or `service.namespace.svc[.domain]`.
fn service_namespace(host: &str) -> Option<String> {
    let labels: Vec<&str> = host.split('.').collect();
    let svc = labels.iter().position(|label| *label == "svc")?;
    (svc >= 2).then(|| labels[svc - 1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_a_service_name_is_found() {
        assert_eq!(service_namespace("etcd.pool.svc").as_deref(), Some("pool"));
        assert_eq!(
            service_namespace("etcd-0.etcd.pool.svc.cluster.local").as_deref(),
            Some("pool")
        );
        assert_eq!(service_namespace("etcd.example.com"), None);
    }

    #[tokio::test]
    async fn addresses_are_taken_as_they_are() {
        let endpoints = ["192.0.2.7:2379".to_owned(), "[2001:db8::1]:2379".to_owned()];
        let found = peers(&endpoints, Vec::new()).await;
        assert_eq!(
            found,
            [
                StoragePeer::Address {
                    ip: "192.0.2.7".parse().unwrap(),
                    port: 2379
                },
                StoragePeer::Address {
                    ip: "2001:db8::1".parse().unwrap(),
                    port: 2379
                },
            ]
        );
    }
}
