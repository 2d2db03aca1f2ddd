//! What restarts a control plane, and what must not.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;
use stoker_control_plane::{Endpoint, Host, leaves};
use stoker_pki::ServiceAccountKey;
use time::Duration;

use crate::scenario::{Scenario, cluster_ip, now, spec};

fn template(scenario: &Scenario) -> PodTemplateSpec {
    scenario.build().deployment.spec.unwrap().template
}

#[test]
fn equal_inputs_give_equal_objects() {
    let scenario = cluster_ip();
    assert_eq!(scenario.build(), scenario.build());
}

#[test]
fn scaling_address_port_certificates_encryption_and_write_permissions_restart_nothing() {
    let mut scenario = cluster_ip();
    let before = template(&scenario);
    for replicas in [0, 1, 2, 5] {
        scenario.tenant.replicas = replicas;
        assert_eq!(template(&scenario), before);
    }
    let host = Host::Name("lb.example".to_owned());
    scenario.exposure.endpoint = Some(Endpoint { host, port: 443 });
    scenario.tenant.network.port = Some(443);
    scenario
        .tenant
        .network
        .cert_sans
        .push("api.example".to_owned());
    let later = now() + Duration::days(300);
    scenario.leaves = leaves(
        &scenario.tenant,
        &scenario.keys,
        &scenario.exposure,
        &scenario.existing(),
        later,
    )
    .unwrap();
    assert_eq!(scenario.leaves.reissued.len(), 6);
    scenario.keys.encryption = cluster_ip().keys.encryption;
    scenario.storage.client = cluster_ip().storage.client;
    scenario.management_networks.clear();
    scenario.tenant.write_permissions.block_update = true;
    assert_eq!(template(&scenario), before);
}

#[test]
fn what_a_component_reads_once_restarts_it() {
    let changes: [fn(&mut Scenario); 6] = [
        |s| s.keys.service_account = cluster_ip().keys.service_account,
        |s| s.keys.certificate_authority = cluster_ip().keys.certificate_authority,
        |s| s.keys.front_proxy_authority = cluster_ip().keys.front_proxy_authority,
        |s| s.storage.certificate_authority = cluster_ip().storage.certificate_authority,
        |s| s.storage.endpoints.push("192.0.2.11:2379".to_owned()),
        |s| s.tenant.version.patch += 1,
    ];
    for change in changes {
        let mut scenario = cluster_ip();
        let before = template(&scenario);
        change(&mut scenario);
        assert_ne!(template(&scenario), before);
    }
}

/// As in a rotation: both public keys are known, and the other one signs.
#[test]
fn another_signing_key_restarts_it_though_the_public_keys_stay() {
    let mut scenario = cluster_ip();
    let (one, two) = (
        scenario.keys.service_account,
        cluster_ip().keys.service_account,
    );
    let both = format!("{}{}", one.public_pem(), two.public_pem());
    let signing =
        |key: &ServiceAccountKey| ServiceAccountKey::from_pem(key.private_pem().as_pem(), &both);
    scenario.keys.service_account = signing(&one).unwrap();
    let before = template(&scenario);
    scenario.keys.service_account = signing(&two).unwrap();
    assert_ne!(template(&scenario), before);
}

#[test]
fn a_budget_protects_two_replicas_and_does_not_block_one() {
    let budget = |replicas| {
        let spec = spec("ClusterIP", replicas, "v1.36.3", &json!({}));
        Scenario::new(&spec, None)
            .guards()
            .pod_disruption_budget
            .is_some()
    };
    assert_eq!([0, 1, 2, 3].map(budget), [false, false, true, true]);
}
