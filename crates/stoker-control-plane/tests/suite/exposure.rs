//! Where a tenant is reached.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use stoker_control_plane::{Endpoint, Exposure, exposure, service};

use crate::scenario::{Scenario, spec, tenant};

fn read(service_type: &str, network: &Value, service: Option<Value>) -> Exposure {
    let service: Option<Service> = service.map(|service| serde_json::from_value(service).unwrap());
    exposure(
        &tenant(&spec(service_type, 1, "v1.36.3", network)),
        None,
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

/// Cases that API servers and CEL are asked about; the first has every option.
const CASES: &str = include_str!("../../../stoker-api/tests/admission/services.yaml");

/// The Service and its policy, which must let in what the Service sends.
fn built(more: &Value) -> (Value, Value) {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    json_patch::merge(&mut spec, more);
    let scenario = Scenario::new(&spec, None);
    let policy = scenario.guards().network_policy;
    (
        serde_json::to_value(service(&scenario.tenant)).unwrap()["spec"].clone(),
        serde_json::to_value(policy).unwrap()["spec"]["ingress"][0]["ports"].clone(),
    )
}

#[test]
fn every_service_option_at_once() {
    let cases: Vec<Value> = serde_saphyr::from_str(CASES).unwrap();
    let (service, let_in) = built(&cases[0]["patch"]["spec"]);
    assert_eq!(
        service,
        json!({
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilies": ["IPv6", "IPv4"],
            "ipFamilyPolicy": "PreferDualStack",
            "loadBalancerClass": "example.com/internal",
            "loadBalancerSourceRanges": ["203.0.113.0/24", "2001:db8::/32"],
            "selector": { "stoker.dev/name": "gpu-17" },
            "ports": [
                { "name": "kube-apiserver", "port": 6443, "protocol": "TCP", "targetPort": "kube-apiserver" },
                { "name": "metrics", "port": 9100, "protocol": "TCP", "targetPort": "metrics", "appProtocol": "http" },
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 5353 },
            ],
        })
    );
    assert_eq!(
        let_in,
        json!([
            { "port": 6443, "protocol": "TCP" },
            { "port": "metrics", "protocol": "TCP" },
            { "port": 5353, "protocol": "UDP" },
            { "port": 5353, "protocol": "TCP" },
        ])
    );
}

#[test]
fn two_families_without_a_policy_are_both_required() {
    let families = |asked: Value| {
        let (service, _) = built(&json!({ "controlPlane": { "service": asked } }));
        (
            service["ipFamilyPolicy"].clone(),
            service["ipFamilies"].clone(),
        )
    };
    assert_eq!(
        families(json!({ "ipFamilies": ["IPv6", "IPv4"] })),
        (json!("RequireDualStack"), json!(["IPv6", "IPv4"]))
    );
    assert_eq!(
        families(json!({ "ipFamilies": ["IPv6"] })),
        (json!(null), json!(["IPv6"]))
    );
    assert_eq!(
        families(json!({ "ipFamilyPolicy": "PreferDualStack" })),
        (json!("PreferDualStack"), json!(null))
    );
}

#[test]
fn an_external_ip_is_the_address_of_a_service_that_is_no_load_balancer() {
    let external = |service_type: &str, network: Value| {
        let service = json!({ "serviceType": service_type });
        let spec = json!({ "controlPlane": { "service": service }, "networkProfile": network });
        built(&spec).0["externalIPs"].clone()
    };
    let asked = json!({ "address": "2001:db8::1", "allowAddressAsExternalIP": true });
    assert_eq!(external("ClusterIP", asked.clone()), json!(["2001:db8::1"]));
    assert_eq!(external("NodePort", asked.clone()), json!(["2001:db8::1"]));
    assert_eq!(external("LoadBalancer", asked), json!(null));
    assert_eq!(
        external("ClusterIP", json!({ "address": "192.0.2.1" })),
        json!(null)
    );
    assert_eq!(
        external("ClusterIP", json!({ "allowAddressAsExternalIP": true })),
        json!(null)
    );
}

/// What a Service had as a load balancer would be refused in another type.
#[test]
fn options_of_load_balancers_go_with_the_type() {
    let (service, _) = built(&json!({ "networkProfile": {
        "loadBalancerClass": "a", "loadBalancerSourceRanges": ["203.0.113.0/24"],
    } }));
    assert_eq!(service["loadBalancerClass"], json!(null));
    assert_eq!(service["loadBalancerSourceRanges"], json!(null));
}
