//! Where control-plane pods reach a pool, as their `NetworkPolicy` must say it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, Client};
use stoker_control_plane::{PodPort, StoragePeer};

/// Peers of `endpoints` (`host:port`): an address as it is, a Service name
/// (`name.namespace.svc…`) as its namespace and the port of its pods, any other name by its addresses. Peers only
/// add up, on top of those already `known`: a lookup that fails, or answers another part of a set each
/// time, must not cut running tenants off.
pub async fn peers(
    endpoints: &[String],
    known: Vec<StoragePeer>,
    client: &Client,
) -> Vec<StoragePeer> {
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
        } else if let Some(name) = ServiceName::of(host) {
            peers.extend(behind(&name, port, client).await);
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

/// The pods behind a Service; none while it cannot be read.
async fn behind(name: &ServiceName, port: u16, client: &Client) -> Option<StoragePeer> {
    let port = match &name.service {
        None => PodPort::Number(port),
        Some(service) => {
            let services: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
            match services.get(service).await {
                Ok(service) => pod_port(&service, port),
                Err(error) => {
                    tracing::warn!(service, error = %error, "Service of a DataStore not read");
                    return None;
                }
            }
        }
    };
    Some(StoragePeer::Namespace {
        name: name.namespace.clone(),
        port,
    })
}

/// The port of the pods behind `port` of a Service. A `NetworkPolicy` sees packets after the Service has been
/// resolved; a headless Service changes no port.
fn pod_port(service: &Service, port: u16) -> PodPort {
    let spec = service.spec.as_ref();
    if spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        return PodPort::Number(port);
    }
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    let found = ports
        .into_iter()
        .flatten()
        .find(|found| found.port == i32::from(port));
    match found.and_then(|found| found.target_port.as_ref()) {
        Some(IntOrString::Int(number)) => PodPort::Number(u16::try_from(*number).unwrap_or(port)),
        Some(IntOrString::String(name)) => PodPort::Name(name.clone()),
        None => PodPort::Number(port),
    }
}

/// What a name says of a Service of this cluster.
#[derive(Debug, PartialEq)]
struct ServiceName {
    /// `None` for the name of a single pod: ports are the pod's.
    service: Option<String>,
    namespace: String,
}

impl ServiceName {
    /// Reads `pod.service.namespace.svc[.domain]` and `service.namespace.svc[.domain]`.
    fn of(host: &str) -> Option<Self> {
        let labels: Vec<&str> = host.split('.').collect();
        let svc = labels.iter().position(|label| *label == "svc")?;
        let namespace = (*labels.get(svc.checked_sub(1)?)?).to_owned();
        match svc {
            2 => Some(Self {
                service: Some(labels[0].to_owned()),
                namespace,
            }),
            3 => Some(Self {
                service: None,
                namespace,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_read() {
        let read = |host| ServiceName::of(host).map(|name| (name.service, name.namespace));
        let pool = || "pool".to_owned();
        assert_eq!(
            read("etcd.pool.svc"),
            Some((Some("etcd".to_owned()), pool()))
        );
        assert_eq!(
            read("etcd.pool.svc.cluster.local"),
            Some((Some("etcd".to_owned()), pool()))
        );
        assert_eq!(
            read("etcd-0.etcd.pool.svc.cluster.local"),
            Some((None, pool()))
        );
        for other in ["etcd.example.com", "svc", "pool.svc", "a.b.c.d.svc"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn pods_are_reached_on_their_own_port() {
        let service = |cluster_ip: &str, target: serde_json::Value| -> Service {
            serde_json::from_value(serde_json::json!({ "metadata": {}, "spec": {
                "clusterIP": cluster_ip, "ports": [{ "port": 443, "targetPort": target }],
            }}))
            .unwrap()
        };
        let number = PodPort::Number;
        assert_eq!(
            pod_port(&service("10.0.0.7", 2379.into()), 443),
            number(2379)
        );
        assert_eq!(
            pod_port(&service("10.0.0.7", "client".into()), 443),
            PodPort::Name("client".to_owned())
        );
        assert_eq!(pod_port(&service("None", 2379.into()), 443), number(443));
        assert_eq!(pod_port(&service("10.0.0.7", 2379.into()), 80), number(80));
    }

    #[tokio::test]
    async fn addresses_are_taken_as_they_are() {
        let endpoints = ["192.0.2.7:2379".to_owned(), "[2001:db8::1]:2379".to_owned()];
        let (service, _handle) = tower_test::mock::pair::<
            http::Request<kube::client::Body>,
            http::Response<kube::client::Body>,
        >();
        let client = Client::new(service, "default");
        let found = peers(&endpoints, Vec::new(), &client).await;
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
