//! Golden files: `UPDATE_GOLDEN=1 cargo test -p stoker-tenant` accepts what is built.

use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};

use stoker_api::host_agent::{KEY, Orders};

use super::{access, all, plain, tenant};
use crate::{NodeListeners, build};

fn check(scenario: &str, objects: &crate::TenantObjects) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{scenario}.yaml"));
    let built = serde_saphyr::to_string_multiple(&all(objects)).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &built).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, was)) in built.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "{scenario}.yaml line {}", number + 1);
    }
    assert_eq!(built.len(), golden.len(), "{scenario}.yaml: length");
}

const ADD_ONS: &str = "addons: { coreDNS: {}, kubeProxy: {} }";

#[test]
fn the_newest_minor_with_both_add_ons() {
    let objects = build(
        &plain("v1.36.3", ADD_ONS),
        &access("192.0.2.10", &["192.0.2.10"]),
    );
    check("plain-1.36", &objects.unwrap());
}

#[test]
fn the_oldest_minor_with_both_add_ons() {
    let objects = build(
        &plain("v1.33.13", ADD_ONS),
        &access("192.0.2.10", &["192.0.2.10"]),
    );
    check("plain-1.33", &objects.unwrap());
}

#[test]
fn priority_of_people_over_agents_of_two_namespaces() {
    let mut tenant = plain("v1.36.3", "");
    let preset = serde_json::json!({ "preset": "Agents", "namespaces": ["agents", "jobs"] });
    tenant.api_priority = serde_json::from_value(preset).unwrap();
    let mut objects = build(&tenant, &access("192.0.2.10", &["192.0.2.10"])).unwrap();
    objects = crate::TenantObjects {
        priority_levels: objects.priority_levels,
        flow_schemas: objects.flow_schemas,
        ..crate::TenantObjects::default()
    };
    check("api-priority", &objects);
}

fn is_read_by_agents(map: &ConfigMap) -> bool {
    map.metadata.name.as_deref() == Some("cluster-info")
}

/// What the hosts' agents are asked for.
fn orders(objects: &crate::TenantObjects) -> Option<Orders> {
    let mut maps = objects.config_maps.iter();
    let map = maps.find(|map| is_read_by_agents(map));
    let text = map.unwrap().data.as_ref().unwrap().get(KEY);
    text.map(|text| serde_json::from_str(text).unwrap())
}

/// The agents alone, of an add-on asked for like this.
fn agents(konnectivity: &str) -> crate::TenantObjects {
    let tenant = plain(
        "v1.36.3",
        &format!("addons: {{ konnectivity: {konnectivity} }}"),
    );
    let built = build(&tenant, &access("192.0.2.10", &["192.0.2.10"])).unwrap();
    let ours =
        |account: &ServiceAccount| account.metadata.name.as_deref() == Some("konnectivity-agent");
    let config_maps = built.config_maps.into_iter();
    crate::TenantObjects {
        config_maps: config_maps.filter(is_read_by_agents).collect(),
        service_accounts: built.service_accounts.into_iter().filter(ours).collect(),
        daemon_sets: built.daemon_sets,
        deployments: built.deployments,
        ..crate::TenantObjects::default()
    }
}

#[test]
fn agents_of_the_tunnel_on_every_node() {
    check("tunnel-daemon-set", &agents("{}"));
}

#[test]
fn agents_of_the_tunnel_on_some_nodes() {
    let asked = "{ agent: { mode: Deployment, replicas: 2, hostNetwork: true, image: registry.example.com/agents/node,
  version: v9, tolerations: [{ operator: Exists }], extraArgs: [--deny=192.0.2.0/24],
  resources: { limits: { memory: 64Mi } } } }";
    check("tunnel-deployment", &agents(asked));
}

#[test]
fn the_hosts_agents_are_asked_for_a_tunnel_that_they_can_be() {
    let order = |agent: &str| {
        let asked = orders(&agents(&format!("{{ agent: {agent} }}")));
        asked.and_then(|orders| orders.tunnel)
    };
    let plain = order("{}").unwrap();
    assert_eq!(plain.server.as_deref(), Some("192.0.2.10:8132"));
    let others = [
        "version: v9",
        "image: a",
        "extraArgs: [--deny=192.0.2.0/24]",
        "mode: Deployment",
    ];
    for other in others {
        assert_eq!(order(&format!("{{ {other} }}")), None);
    }
}

#[test]
fn an_agent_is_probed_where_it_is_known_to_answer() {
    let is_probed = |agent: &str| {
        let built = agents(&format!("{{ agent: {agent} }}"));
        let pod = built.daemon_sets[0].spec.clone().unwrap().template.spec;
        let container = pod.unwrap().containers.remove(0);
        assert_eq!(container.readiness_probe.is_some(), container.env.is_some());
        container.readiness_probe.is_some()
    };
    assert!(is_probed("{}") && is_probed("{ image: '', extraArgs: [--deny=192.0.2.0/24] }"));
    assert!(!is_probed("{ hostNetwork: true }") && !is_probed("{ version: v0 }"));
    assert!(!is_probed("{ extraArgs: ['--metrics-listen=[::]:9000'] }"));
}

#[test]
fn listeners_on_nodes_that_lead_through_a_gateway() {
    let mut access = access(
        "acme.tenants.example.com",
        &["fd53:746f:6b72::1", "192.0.0.64"],
    );
    access.listeners = Some(NodeListeners {
        servers: vec!["acme.tenants.example.com:6443".to_owned()],
        name: Some("acme.tenants.example.com".to_owned()),
        image: "stoker.dev/stoker-node:v0.1.0".to_owned(),
    });
    let built = build(&plain("v1.36.3", ""), &access).unwrap();
    let config_maps = built.config_maps.into_iter();
    let objects = crate::TenantObjects {
        config_maps: config_maps.filter(is_read_by_agents).collect(),
        endpoints: built.endpoints,
        endpoint_slices: built.endpoint_slices,
        daemon_sets: built.daemon_sets,
        ..crate::TenantObjects::default()
    };
    check("node-listener", &objects);
    // Until it is known what they dial there are none.
    access.listeners.as_mut().unwrap().servers.clear();
    let built = build(&plain("v1.36.3", ""), &access).unwrap();
    assert!(built.daemon_sets.is_empty());
}

#[test]
fn no_add_ons_and_a_name_to_dial() {
    let objects = build(
        &plain("v1.35.4", ""),
        &access(
            "acme.tenants.example.com",
            &["198.51.100.7", "198.51.100.6"],
        ),
    );
    check("name-without-add-ons", &objects.unwrap());
}

#[test]
fn dual_stack_with_ipv6_first_own_images_and_patches() {
    let tenant = tenant(
        "controlPlane: { service: { serviceType: LoadBalancer } }
kubernetes:
  version: v1.34.4
  kubelet:
    cgroupfs: cgroupfs
    configurationJSONPatches:
    - { op: add, path: /failCgroupV1, value: false }
    - { op: replace, path: /logging/verbosity, value: 2 }
networkProfile:
  clusterDomain: acme.internal
  serviceCidrs: [ 'fd00:10:96::/112', '10.96.0.0/16' ]
  podCidrs: [ 'fd00:10:244::/56', '10.244.0.0/16' ]
addons:
  coreDNS: { imageRepository: registry.example.com/dns }
  kubeProxy:
    imageTag: v1.34.1
    configurationJSONPatches:
    - { op: replace, path: /conntrack, value: { maxPerCore: 0, min: 0 } }",
    );
    let access = access("2001:db8::10", &["192.0.2.10", "2001:db8::10"]);
    check("dual-stack", &build(&tenant, &access).unwrap());
}
