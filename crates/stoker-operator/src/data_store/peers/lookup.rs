//! Looking up the endpoints of a pool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, Client};
use stoker_control_plane::{PodPort, StoragePeer};

use super::Answer;

/// A resolver that hangs is one that fails.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks up `endpoints` (`host:port`): an address is taken as it is, a Service name (`name.namespace.svc…`, or that of
/// a pod behind it) means the pods that the Service selects, any other name its addresses.
pub async fn look_up(endpoints: &[String], client: &Client) -> BTreeMap<String, Answer> {
    let one = async |endpoint: &String| {
        let answer = tokio::time::timeout(LIMIT, answer(endpoint, client));
        let answer = answer.await.unwrap_or_else(|_| Err("timed out".to_owned()));
        if let Err(why) = &answer {
            tracing::warn!(endpoint, why, "endpoint of a DataStore not resolved");
        }
        (endpoint.clone(), answer)
    };
    join_all(endpoints.iter().map(one))
        .await
        .into_iter()
        .collect()
}

async fn answer(endpoint: &str, client: &Client) -> Answer {
    let invalid = || "it is not host:port".to_owned();
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse::<u16>().map_err(|_| invalid())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![StoragePeer::Address { ip, port }]);
    }
    if let Some(name) = ServiceName::of(host) {
        let service = read(&name, client).await?;
        return match behind(&name, &service, port)? {
            Behind::Pods(pods) => Ok(vec![pods]),
            Behind::Name(other) => addresses(&other, port).await,
            Behind::Itself => addresses(host, port).await,
        };
    }
    addresses(host, port).await
}

/// What DNS says of a name.
async fn addresses(host: &str, port: u16) -> Answer {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| error.to_string())?;
    let peers: Vec<_> = found
        .map(|address| StoragePeer::Address {
            ip: address.ip(),
            port,
        })
        .collect();
    if peers.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(peers)
}

async fn read(name: &ServiceName, client: &Client) -> Result<Service, String> {
    let services: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
    services.get(&name.service).await.map_err(|error| {
        let why = match &error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        format!("Service {}/{}: {why}", name.namespace, name.service)
    })
}

/// Where the way to a Service leads.
#[derive(Debug, PartialEq)]
enum Behind {
    /// To the pods that it selects.
    Pods(StoragePeer),
    /// To what has this name.
    Name(String),
    /// To the addresses that its own name has: somebody else says which.
    Itself,
}

/// What is behind a Service. One that selects no pods must not open its namespace: it is followed where DNS says the
/// addresses that packets will have, and refused where it says a virtual one.
fn behind(name: &ServiceName, service: &Service, port: u16) -> Result<Behind, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let refused = |why: &str| Err(format!("Service {}/{} {why}", name.namespace, name.service));
    if let Some(other) = spec.external_name {
        if ServiceName::of(&other).is_some() {
            return refused("is another name of a Service: name that one");
        }
        return Ok(Behind::Name(other));
    }
    let labels = spec.selector.unwrap_or_default();
    if labels.is_empty() {
        if spec.cluster_ip.as_deref() == Some("None") {
            return Ok(Behind::Itself);
        }
        return refused(
            "selects no pods: make it headless (clusterIP: None), or list the members by address",
        );
    }
    Ok(Behind::Pods(StoragePeer::Pods {
        port: if name.is_pod {
            PodPort::Number(port)
        } else {
            pod_port(service, port)
        },
        labels,
        namespace: name.namespace.clone(),
    }))
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
    service: String,
    namespace: String,
    /// Whether it is the name of a single pod behind the Service: ports are the pod's.
    is_pod: bool,
}

impl ServiceName {
    /// Reads `pod.service.namespace.svc[.domain]` and `service.namespace.svc[.domain]`.
    fn of(host: &str) -> Option<Self> {
        let labels: Vec<&str> = host.split('.').collect();
        let svc = labels.iter().position(|label| *label == "svc")?;
        let (service, namespace, is_pod) = match labels[..svc] {
            [service, namespace] => (service, namespace, false),
            [_, service, namespace] => (service, namespace, true),
            _ => return None,
        };
        Some(Self {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            is_pod,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Handle = tower_test::mock::Handle<
        http::Request<kube::client::Body>,
        http::Response<kube::client::Body>,
    >;

    fn api() -> (Client, Handle) {
        let (service, handle) = tower_test::mock::pair();
        (Client::new(service, "default"), handle)
    }

    fn service(cluster_ip: &str, target: &Value) -> Service {
        let object = json!({ "metadata": {}, "spec": {
            "clusterIP": cluster_ip, "ports": [{ "port": 443, "targetPort": target }],
            "selector": { "app": "etcd" },
        }});
        serde_json::from_value(object).unwrap()
    }

    /// Answers the one request that is to come.
    async fn serve(handle: &mut Handle, code: u16, body: Value) -> String {
        let (request, answer) = handle.next_request().await.unwrap();
        let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
        answer.send_response(http::Response::builder().status(code).body(body).unwrap());
        request.uri().path().to_owned()
    }

    #[test]
    fn service_names_are_read() {
        let read =
            |host| ServiceName::of(host).map(|name| (name.service, name.namespace, name.is_pod));
        let found = |is_pod| Some(("etcd".to_owned(), "pool".to_owned(), is_pod));
        assert_eq!(read("etcd.pool.svc"), found(false));
        assert_eq!(read("etcd.pool.svc.cluster.local"), found(false));
        assert_eq!(read("etcd-0.etcd.pool.svc.cluster.local"), found(true));
        for other in ["etcd.example.com", "svc", "pool.svc", "a.b.c.d.svc"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn pods_are_reached_on_their_own_port() {
        let number = PodPort::Number;
        assert_eq!(
            pod_port(&service("10.0.0.7", &2379.into()), 443),
            number(2379)
        );
        assert_eq!(
            pod_port(&service("10.0.0.7", &"client".into()), 443),
            PodPort::Name("client".to_owned())
        );
        assert_eq!(pod_port(&service("None", &2379.into()), 443), number(443));
        assert_eq!(pod_port(&service("10.0.0.7", &2379.into()), 80), number(80));
    }

    #[tokio::test]
    async fn addresses_are_taken_as_they_are() {
        let endpoints = ["192.0.2.7:2379".to_owned(), "[2001:db8::1]:2379".to_owned()];
        let found = look_up(&endpoints, &api().0).await;
        let address = |ip: &str| {
            Ok(vec![StoragePeer::Address {
                ip: ip.parse().unwrap(),
                port: 2379,
            }])
        };
        assert_eq!(found[&endpoints[0]], address("192.0.2.7"));
        assert_eq!(found[&endpoints[1]], address("2001:db8::1"));
    }

    #[tokio::test]
    async fn of_a_service_only_its_own_pods_are_reached() {
        let (client, mut handle) = api();
        let endpoints = ["etcd.pool.svc:443".to_owned()];
        let object = serde_json::to_value(service("10.0.0.7", &2379.into())).unwrap();
        let (found, path) = tokio::join!(
            look_up(&endpoints, &client),
            serve(&mut handle, 200, object)
        );
        assert_eq!(path, "/api/v1/namespaces/pool/services/etcd");
        let pods = StoragePeer::Pods {
            namespace: "pool".to_owned(),
            labels: [("app".to_owned(), "etcd".to_owned())].into(),
            port: PodPort::Number(2379),
        };
        assert_eq!(found[&endpoints[0]], Ok(vec![pods]));
    }

    /// What is behind Service `pool/etcd` with this spec.
    fn found(spec: &Value) -> Result<Behind, String> {
        let service = serde_json::from_value(json!({ "spec": spec })).unwrap();
        behind(&ServiceName::of("etcd.pool.svc").unwrap(), &service, 2379)
    }

    #[test]
    fn a_service_that_selects_no_pods_does_not_open_its_namespace() {
        let external = |name| json!({ "type": "ExternalName", "externalName": name });
        let elsewhere = Ok(Behind::Name("etcd.example.com".to_owned()));
        assert_eq!(found(&external("etcd.example.com")), elsewhere);
        let why = found(&external("etcd.other.svc.cluster.local")).unwrap_err();
        assert!(
            why.contains("pool/etcd") && why.contains("name that one"),
            "{why}"
        );
        for selector in [json!(null), json!({})] {
            let spec = |ip: &str| json!({ "clusterIP": ip, "selector": selector });
            assert_eq!(found(&spec("None")), Ok(Behind::Itself));
            let why = found(&spec("10.0.0.7")).unwrap_err();
            assert!(
                why.contains("pool/etcd") && why.contains("headless"),
                "{why}"
            );
        }
    }

    #[tokio::test]
    async fn an_external_name_is_followed() {
        let (client, mut handle) = api();
        let endpoints = ["etcd.pool.svc:2379".to_owned()];
        let object = json!({ "spec": { "type": "ExternalName", "externalName": "localhost" } });
        let (found, _) = tokio::join!(
            look_up(&endpoints, &client),
            serve(&mut handle, 200, object)
        );
        let peers = found[&endpoints[0]].clone().unwrap();
        let local = |peer: &StoragePeer| matches!(peer, StoragePeer::Address { ip, port: 2379 } if ip.is_loopback());
        assert!(!peers.is_empty() && peers.iter().all(local), "{peers:?}");
    }

    #[tokio::test]
    async fn a_service_that_cannot_be_read_is_a_failure() {
        let (client, mut handle) = api();
        let endpoints = ["etcd-0.etcd.pool.svc:2379".to_owned()];
        let gone = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
            "reason": "NotFound", "message": "services \"etcd\" not found" });
        let (found, path) =
            tokio::join!(look_up(&endpoints, &client), serve(&mut handle, 404, gone));
        assert_eq!(path, "/api/v1/namespaces/pool/services/etcd");
        let why = "Service pool/etcd: services \"etcd\" not found";
        assert_eq!(found[&endpoints[0]], Err(why.to_owned()));
    }
}
