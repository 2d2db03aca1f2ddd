//! Where a tenant is reached.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use stoker_control_plane::{Endpoint, Exposure, exposure, service};

use crate::scenario::{spec, tenant};

fn read(service_type: &str, network: &Value, service: Option<Value>) -> Exposure {
    let service: Option<Service> = service.map(|service| serde_json::from_value(service).unwrap());
    exposure(
        &tenant(&spec(service_type, 1, "v1.36.3", network)),
        service.as_ref(),
    )
}

fn endpoint(service_type: &str, network: &Value, service: Option<Value>) -> Option<String> {
    read(service_type, network, service)
        .endpoint
        .map(|endpoint: Endpoint| endpoint.to_string())
}

fn with_cluster_ip(address: &str) -> Value {
    json!({ "metadata": {}, "spec": { "clusterIP": address, "clusterIPs": [address] } })
}

fn with_ingress(ingress: &Value) -> Value {
    json!({ "metadata": {}, "status": { "loadBalancer": { "ingress": ingress } } })
}

#[test]
fn cluster_ip_is_the_service_unless_an_address_is_asked_for() {
    let service = || Some(with_cluster_ip("10.100.7.7"));
    let read = |network: Value, service| endpoint("ClusterIP", &network, service);
    assert_eq!(read(json!({}), None), None);
    assert_eq!(
        read(json!({}), service()).as_deref(),
        Some("10.100.7.7:6443")
    );
    assert_eq!(
        read(json!({ "port": 443 }), service()).as_deref(),
        Some("10.100.7.7:443")
    );
    let asked = json!({ "address": "203.0.113.1" });
    assert_eq!(
        read(asked.clone(), service()).as_deref(),
        Some("203.0.113.1:6443")
    );
    assert_eq!(read(asked, None).as_deref(), Some("203.0.113.1:6443"));
    let six = Some(with_cluster_ip("fd00::7"));
    assert_eq!(read(json!({}), six).as_deref(), Some("[fd00::7]:6443"));
    assert_eq!(read(json!({}), Some(with_cluster_ip("None"))), None);
}

#[test]
fn node_port_is_the_address_and_the_port_asked_for_or_given() {
    let network = json!({ "address": "198.51.100.20" });
    let given = |port: i32| {
        Some(json!({ "metadata": {}, "spec": { "ports": [
            { "name": "other", "port": 1, "nodePort": 30001 },
            { "name": "kube-apiserver", "port": 6443, "nodePort": port },
        ] } }))
    };
    assert_eq!(endpoint("NodePort", &network, None), None);
    assert_eq!(endpoint("NodePort", &network, given(0)), None);
    assert_eq!(
        endpoint("NodePort", &network, given(31234)).as_deref(),
        Some("198.51.100.20:31234")
    );
    let asked = json!({ "address": "198.51.100.20", "port": 30443 });
    assert_eq!(
        endpoint("NodePort", &asked, None).as_deref(),
        Some("198.51.100.20:30443")
    );
}

#[test]
fn a_load_balancer_gives_an_address_or_a_name() {
    let read = |ingress: Value| endpoint("LoadBalancer", &json!({}), Some(with_ingress(&ingress)));
    assert_eq!(read(json!([])), None);
    assert_eq!(
        read(json!([{ "ip": "203.0.113.5" }])).as_deref(),
        Some("203.0.113.5:6443")
    );
    assert_eq!(
        read(json!([{ "ip": "2001:db8::5" }])).as_deref(),
        Some("[2001:db8::5]:6443")
    );
    assert_eq!(
        read(json!([{ "hostname": "a.example" }])).as_deref(),
        Some("a.example:6443")
    );
    assert_eq!(read(json!([{ "hostname": "" }])), None);
    let both = json!([{ "hostname": "a.example" }, { "ip": "203.0.113.5" }]);
    let all = super::exposure::read("LoadBalancer", &json!({}), Some(with_ingress(&both)));
    assert_eq!(all.load_balancer, ["a.example", "203.0.113.5"]);
    let asked = json!({ "address": "203.0.113.1" });
    assert_eq!(
        endpoint("LoadBalancer", &asked, None).as_deref(),
        Some("203.0.113.1:6443")
    );
}

#[test]
fn a_node_port_is_set_only_when_asked_for() {
    let port = |service_type: &str, network: &Value| {
        let built = service(&tenant(&spec(service_type, 1, "v1.36.3", network)));
        let port = built.spec.unwrap().ports.unwrap().remove(0);
        (port.port, port.node_port)
    };
    let address = "198.51.100.20";
    assert_eq!(
        port("NodePort", &json!({ "address": address })),
        (6443, None)
    );
    assert_eq!(
        port("NodePort", &json!({ "address": address, "port": 30443 })),
        (30443, Some(30443))
    );
    assert_eq!(port("LoadBalancer", &json!({ "port": 443 })), (443, None));
    assert_eq!(port("ClusterIP", &json!({ "port": 443 })), (443, None));
}
