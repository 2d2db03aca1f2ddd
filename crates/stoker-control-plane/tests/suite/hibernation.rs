//! What differs where a tenant may sleep: the name that wakes it, and who is told of requests.

use serde_json::{Value, json};
use stoker_control_plane::serving_names;
use stoker_pki::parse_kubeconfig;

use crate::scenario::{STABLE_NAME, Scenario, spec};

fn scenario(hibernation: &Value, name: Option<&str>, more: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    spec["hibernation"] = hibernation.clone();
    json_patch::merge(&mut spec, more);
    let service = json!({ "metadata": {}, "spec": { "clusterIPs": ["10.100.7.9"] } });
    Scenario::named(&spec, name, Some(&service))
}

/// The names in an admin kubeconfig that TLS asks for: for people outside, and inside the management cluster.
fn asked_for(scenario: &Scenario) -> [Option<String>; 2] {
    let secrets = scenario.build().secrets;
    let of = |entry: &str| {
        let mut data = secrets
            .iter()
            .filter_map(|secret| secret.data.as_ref()?.get(entry));
        let text = String::from_utf8(data.next().unwrap().0.clone()).unwrap();
        parse_kubeconfig(&text).unwrap().tls_server_name
    };
    ["admin.conf", "admin.svc"].map(of)
}

#[test]
fn people_of_a_tenant_that_a_connection_wakes_ask_for_the_name_that_does() {
    let waking = format!("wake-{STABLE_NAME}");
    let route = json!({ "controlPlane": { "gateway": { "hostname": "api.example.com" } } });
    let no_connection = json!({ "wakeOnConnection": false });
    for (hibernation, name, more, asks) in [
        (json!({}), Some(STABLE_NAME), json!({}), true),
        (no_connection, Some(STABLE_NAME), json!({}), false),
        (Value::Null, Some(STABLE_NAME), json!({}), false),
        // No gateway of ours knows it.
        (json!({}), None, json!({}), false),
        // What people dial leads elsewhere.
        (json!({}), Some(STABLE_NAME), route, false),
    ] {
        let scenario = scenario(&hibernation, name, &more);
        let wanted = asks.then(|| waking.clone());
        assert_eq!(asked_for(&scenario), [wanted, None], "{hibernation} {more}");
        let (names, _) = serving_names(&scenario.tenant, &scenario.exposure);
        // Kubeconfigs that ask for it outlive what was wanted when they were made; and no node may ever serve it.
        assert_eq!(
            names.contains(&waking),
            name.is_some(),
            "{hibernation} {more}"
        );
    }
}

#[test]
fn only_of_a_tenant_that_sleeps_when_idle_is_anybody_told_who_asks() {
    let told = |hibernation: Value| {
        let objects = scenario(&hibernation, None, &json!({})).build();
        let mut maps = objects.config_maps.into_iter().filter_map(|map| map.data);
        let data = maps.find(|data| data.contains_key("guard.conf")).unwrap();
        let configuration: Value =
            serde_saphyr::from_str(&data["authorization-config.yaml"]).unwrap();
        let first = configuration["authorizers"][0].clone();
        let mounted = json!(objects.deployment)
            .to_string()
            .contains("activity.conf");
        assert_eq!(data.contains_key("activity.conf"), mounted);
        (first, mounted)
    };
    let (first, mounted) = told(json!({ "idleAfter": "30m" }));
    assert!(mounted);
    assert_eq!(first["name"], "activity.stoker.dev");
    let webhook = &first["webhook"];
    assert_eq!(webhook["failurePolicy"], "NoOpinion");
    assert_eq!(
        webhook["connectionInfo"]["kubeConfigFile"],
        "/etc/kubernetes/activity.conf"
    );
    let (first, mounted) = told(json!({}));
    assert!(!mounted);
    assert_eq!(first["name"], "platform-identities.stoker.dev");
}
