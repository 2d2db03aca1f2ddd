//! Every object of a few tenants, as YAML. `UPDATE_GOLDEN=1` accepts what is built now.

use std::path::Path;

use k8s_openapi::serde::Serialize;
use serde_json::{Value, json};
use stoker_control_plane::{PodPort, StoragePeer, ingress, service, tls_route};

use crate::redaction::redacted;
use crate::scenario::{STABLE_NAME, Scenario, cluster_ip, secrets, spec};

#[test]
fn cluster_ip_with_one_replica() {
    check("cluster-ip", &cluster_ip());
}

/// The oldest release, a pool known by names, and a node port that the cluster chose.
#[test]
fn node_port_without_a_port_on_the_oldest_release() {
    let scenario = Scenario::new(
        &spec(
            "NodePort",
            1,
            "v1.33.13",
            &json!({ "address": "198.51.100.20" }),
        ),
        Some(&json!({
            "metadata": {},
            "spec": {
                "clusterIP": "10.100.7.8",
                "clusterIPs": ["10.100.7.8"],
                "ports": [{ "name": "kube-apiserver", "port": 6443, "nodePort": 31234 }],
            },
        })),
    );
    let peer = StoragePeer::Pods {
        namespace: "stoker-system".to_owned(),
        labels: [("app".to_owned(), "etcd".to_owned())].into(),
        port: PodPort::Number(2379),
    };
    check(
        "node-port",
        &scenario.pool(&["etcd.stoker-system.svc:2379"], vec![peer]),
    );
}

#[test]
fn load_balancer_with_two_replicas_and_dual_stack() {
    let mut spec = spec(
        "LoadBalancer",
        2,
        "v1.34.4",
        &json!({
            "port": 443,
            "certSANs": ["api.gpu-17.example.com", "2001:db8:5::5"],
            "clusterDomain": "gpu.example",
            "serviceCidrs": ["fd00:10:96::/112", "10.97.0.0/16"],
            "podCidrs": ["fd00:10:244::/56", "10.245.0.0/16"],
        }),
    );
    spec["controlPlane"]["service"]["additionalMetadata"] = json!({
        "labels": { "team": "gpu", "stoker.dev/name": "not-this" },
        "annotations": { "example.com/pool": "public" },
    });
    spec["kubernetes"]["kubelet"]["preferredAddressTypes"] = json!(["ExternalIP", "InternalDNS"]);
    let scenario = Scenario::new(
        &spec,
        Some(&json!({
            "metadata": {},
            "spec": { "clusterIP": "10.100.7.9", "clusterIPs": ["10.100.7.9", "fd00:100::9"] },
            "status": { "loadBalancer": { "ingress": [{ "hostname": "lb-1.example.net" }] } },
        })),
    );
    check("load-balancer", &scenario);
}

/// IPv6 before IPv4 wherever there are both, and a name of its own under the operator's base domain.
#[test]
fn a_stable_name_and_dual_stack_with_ipv6_first() {
    let mut spec = spec(
        "LoadBalancer",
        1,
        "v1.36.3",
        &json!({
            "serviceCidrs": ["fd00:10:96::/112", "10.97.0.0/16"],
            "podCidrs": ["fd00:10:244::/56", "10.245.0.0/16"],
        }),
    );
    spec["controlPlane"]["service"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    let service = json!({
        "metadata": {},
        "spec": { "clusterIPs": ["fd00:100::9", "10.100.7.9"], "ipFamilies": ["IPv6", "IPv4"] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.9" }, { "ip": "2001:db8::9" }] } },
    });
    let scenario = Scenario::named(&spec, Some(STABLE_NAME), Some(&service));
    check("stable-name", &scenario);
}

#[test]
fn an_ingress_with_a_port_of_its_own() {
    check(
        "ingress",
        &routed(&json!({ "ingress": {
        "hostname": "api.example.com:443",
        "ingressClassName": "nginx",
        "additionalMetadata": {
            "labels": { "team": "gpu", "stoker.dev/name": "not-this" },
            "annotations": { "nginx.ingress.kubernetes.io/ssl-passthrough": "true" },
        },
    } })),
    );
}

#[test]
fn a_tls_route_to_two_gateways() {
    check(
        "gateway",
        &routed(&json!({ "gateway": {
        "hostname": "api.example.com",
        "additionalMetadata": { "labels": { "team": "gpu" } },
        "parentRefs": [
            { "name": "public", "namespace": "gateways", "sectionName": "tls", "port": 443 },
            { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "private" },
        ],
    } })),
    );
}

/// The node port is the tunnel's own, the pods' port is not.
#[test]
fn a_tunnel_behind_node_ports() {
    let network = json!({ "address": "192.0.2.44", "port": 30443 });
    let mut spec = spec("NodePort", 2, "v1.36.3", &network);
    spec["addons"] = json!({ "konnectivity": {
        "server": { "port": 31132, "resources": { "limits": { "memory": "64Mi" } } },
    } });
    let ports = json!([
        { "name": "kube-apiserver", "port": 30443, "nodePort": 30443 },
        { "name": "konnectivity-server", "port": 31132, "nodePort": 31132 },
    ]);
    let service =
        json!({ "metadata": {}, "spec": { "clusterIPs": ["10.100.7.7"], "ports": ports } });
    check("tunnel", &Scenario::new(&spec, Some(&service)));
}

fn routed(more: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    json_patch::merge(&mut spec["controlPlane"], more);
    let service = json!({ "metadata": {}, "spec": { "clusterIPs": ["10.100.7.7"] } });
    Scenario::new(&spec, Some(&service))
}

/// Nothing waits for the load balancer: only the kubeconfig for its address comes later.
#[test]
fn load_balancer_before_its_address_is_known() {
    let spec = spec("LoadBalancer", 2, "v1.35.4", &json!({}));
    check("load-balancer-pending", &Scenario::new(&spec, None));
}

pub(crate) fn check(name: &str, scenario: &Scenario) {
    let objects = scenario.build();
    let mut values = vec![
        value(&service(&scenario.tenant)),
        value(&objects.deployment),
    ];
    let guards = scenario.guards();
    values.extend(ingress(&scenario.tenant).as_ref().map(value));
    values.extend(tls_route(&scenario.tenant, "v1").as_ref().map(value));
    values.extend(guards.pod_disruption_budget.as_ref().map(value));
    values.push(value(&guards.network_policy));
    values.extend(guards.static_admission.as_ref().map(value));
    values.extend(objects.config_maps.iter().map(value));
    values.extend(secrets(&objects).iter().map(value));
    let documents: Vec<_> = values
        .into_iter()
        .map(|value| serde_saphyr::to_string(&redacted(value)).unwrap())
        .collect();
    let actual = documents.join("---\n");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != actual {
        let line = expected
            .lines()
            .zip(actual.lines())
            .take_while(|(a, b)| a == b)
            .count();
        panic!(
            "{} differs from line {}: expected {:?}, built {:?}; UPDATE_GOLDEN=1 accepts what is built",
            path.display(),
            line + 1,
            expected.lines().nth(line),
            actual.lines().nth(line),
        );
    }
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}
