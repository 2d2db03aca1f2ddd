//! Who is asked about a request, in which order, and about which requests.

use serde_json::{Value, json};
use stoker_api::v1alpha1::WritePermissions;

use crate::scenario::cluster_ip;

fn authorizers(blocked: [bool; 3]) -> Vec<Value> {
    let [block_creation, block_update, block_deletion] = blocked;
    let mut scenario = cluster_ip();
    scenario.tenant.write_permissions = WritePermissions {
        block_creation,
        block_update,
        block_deletion,
    };
    let maps = scenario.build().config_maps;
    let texts = maps.iter().flat_map(|map| map.data.iter().flatten());
    let mut texts = texts.filter(|(entry, _)| *entry == "authorization-config.yaml");
    let configuration: Value = serde_saphyr::from_str(texts.next().unwrap().1).unwrap();
    assert_eq!(configuration["apiVersion"], "apiserver.config.k8s.io/v1");
    configuration["authorizers"].as_array().unwrap().clone()
}

fn names(authorizers: &[Value]) -> Vec<&str> {
    let names = authorizers
        .iter()
        .map(|found| found["name"].as_str().unwrap());
    names.collect()
}

fn conditions(authorizer: &Value) -> Vec<&str> {
    let conditions = authorizer["webhook"]["matchConditions"].as_array().unwrap();
    let texts = conditions.iter().map(|found| found["expression"].as_str());
    texts.map(Option::unwrap).collect()
}

#[test]
fn the_guard_comes_first_and_of_writes_only_while_some_are_frozen() {
    let platform = "platform-identities.stoker.dev";
    let writable = authorizers([false; 3]);
    assert_eq!(names(&writable), [platform, "node", "rbac"]);
    let frozen = authorizers([true, false, false]);
    let freeze = "write-freeze.stoker.dev";
    assert_eq!(names(&frozen), [platform, freeze, "node", "rbac"]);
    for guard in &frozen[..2] {
        let webhook = &guard["webhook"];
        assert_eq!(webhook["failurePolicy"], "Deny");
        assert_eq!(
            webhook["connectionInfo"]["kubeConfigFile"],
            "/etc/kubernetes/guard.conf"
        );
    }
}

/// The first condition is all that other requests cost.
#[test]
fn the_first_condition_knows_most_requests_that_are_not_meant() {
    let table = [
        ([true, false, false], "['create']"),
        ([false, true, false], "['create', 'patch', 'update']"),
        (
            [false, false, true],
            "['create', 'delete', 'deletecollection']",
        ),
        (
            [true; 3],
            "['create', 'delete', 'deletecollection', 'patch', 'update']",
        ),
    ];
    for (blocked, verbs) in table {
        let authorizers = authorizers(blocked);
        let first = conditions(&authorizers[1])[0];
        let wanted = format!("request.resourceAttributes.verb in {verbs}");
        assert!(first.ends_with(&wanted), "{first}");
        assert!(first.starts_with("has(request.resourceAttributes) && "));
    }
    let writable = authorizers([false; 3]);
    assert!(conditions(&writable[0])[0].ends_with("verb.startsWith('impersonate')"));
}

/// API servers refuse a configuration in which names are not DNS subdomains, or there twice.
#[test]
fn every_authorizer_has_a_name_of_its_own() {
    let authorizers = authorizers([true; 3]);
    let mut names = names(&authorizers);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4);
    let kinds: Vec<_> = authorizers
        .iter()
        .map(|found| found["type"].clone())
        .collect();
    assert_eq!(json!(kinds), json!(["Webhook", "Webhook", "Node", "RBAC"]));
}
