//! Which API servers take policies from files, and with what they are given them.

use serde_json::{Value, json};

use crate::golden::check;
use crate::scenario::{Scenario, networks, pod, spec};

const GATE: &str = "ManifestBasedAdmissionControlConfig";

fn with(version: &str, gates: &Value, arguments: &[&str]) -> Scenario {
    let mut spec = spec("ClusterIP", 1, version, &json!({}));
    spec["kubernetes"]["featureGates"] = gates.clone();
    spec["controlPlane"]["deployment"]["extraArgs"] = json!({ "apiServer": arguments });
    Scenario::new(&spec, None)
}

fn on() -> Scenario {
    with("v1.36.3", &json!({ GATE: true }), &[])
}

/// The configuration files that the API server is told of.
fn told(scenario: &Scenario) -> Vec<String> {
    let objects = scenario.build();
    let arguments = pod(&objects).containers[0].args.clone().unwrap();
    let flag = "--admission-control-config-file=";
    let told = arguments.iter().filter_map(|one| one.strip_prefix(flag));
    told.map(str::to_owned).collect()
}

fn is_given(scenario: &Scenario) -> bool {
    let given = scenario.guards().static_admission.is_some();
    let pods = serde_json::to_string(&scenario.build().deployment).unwrap();
    assert_eq!(pods.contains("gpu-17-static-admission"), given);
    given
}

#[test]
fn policies_in_files() {
    check("static-admission", &on());
}

#[test]
fn they_are_given_where_the_gate_is_on_and_nowhere_else() {
    let gate = |on: bool| format!("--feature-gates={GATE}={on}");
    for (version, gates, arguments, expected) in [
        ("v1.36.3", json!({ GATE: true }), vec![], true),
        ("v1.36.3", json!({ GATE: false }), vec![], false),
        ("v1.36.3", json!({}), vec![], false),
        ("v1.35.4", json!({}), vec![], false),
        // An argument comes behind the field.
        ("v1.36.3", json!({ GATE: true }), vec![gate(false)], false),
        ("v1.36.3", json!({}), vec![gate(true)], true),
        ("v1.36.3", json!({}), vec![gate(true), gate(false)], false),
        (
            "v1.36.3",
            json!({ GATE: true }),
            vec!["--feature-gates=WatchList=true".to_owned()],
            true,
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let scenario = with(version, &gates, &arguments);
        assert_eq!(
            is_given(&scenario),
            expected,
            "{version} {gates} {arguments:?}"
        );
        let file = "/etc/kubernetes/admission-config.yaml".to_owned();
        assert_eq!(told(&scenario), Vec::from_iter(expected.then_some(file)));
    }
}

/// From where no release is supported yet it is on by default.
#[test]
fn they_are_given_by_default_from_the_minor_that_has_them_on() {
    let mut scenario = with("v1.36.3", &json!({}), &[]);
    scenario.tenant.version.minor = 37;
    assert!(is_given(&scenario));
    scenario.tenant.feature_gates.insert(GATE.to_owned(), false);
    assert!(!is_given(&scenario));
}

/// Who has policies of their own can name ours too: the files are there.
#[test]
fn a_configuration_of_peoples_own_takes_the_place_of_ours() {
    let own = "--admission-control-config-file=/etc/own/admission.yaml";
    let scenario = with("v1.36.3", &json!({ GATE: true }), &[own]);
    assert_eq!(told(&scenario), ["/etc/own/admission.yaml"]);
    assert!(is_given(&scenario));
}

#[test]
fn other_networks_change_the_files_and_not_the_pods() {
    let mut scenario = on();
    let before = (
        scenario.guards().static_admission,
        scenario.build().deployment,
    );
    scenario
        .management_networks
        .extend(networks(&["198.51.100.0/24"]));
    let after = (
        scenario.guards().static_admission,
        scenario.build().deployment,
    );
    assert_ne!(before.0, after.0);
    assert_eq!(before.1, after.1);
}

/// Whatever the `NetworkPolicy` excepts: the hosts of the tenant's own pool too.
#[test]
fn the_rule_closes_what_the_network_policy_closes() {
    let guards = on().guards();
    let policy = serde_json::to_value(guards.network_policy).unwrap();
    let text = guards.static_admission.unwrap().data.unwrap()["webhook-urls.yaml"].clone();
    let mut closed = 0;
    for rule in policy["spec"]["egress"].as_array().unwrap() {
        for peer in rule["to"].as_array().unwrap() {
            for network in peer["ipBlock"]["except"].as_array().into_iter().flatten() {
                let network = network.as_str().unwrap();
                assert!(text.contains(&format!("'{network}'")), "{network}");
                closed += 1;
            }
        }
    }
    assert!(closed >= 10, "{closed}");
}
