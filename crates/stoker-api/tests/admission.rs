//! The CEL rules and types against the admission tables, without an API server.
//!
//! `e2e/tests/crd_validation.rs` runs the same tables against kube-apiserver.

#![expect(clippy::unwrap_used, reason = "what these functions do is test")]

#[path = "admission/cases.rs"]
mod cases;

use cases::Table;
use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    DataStore, JoinToken, JsonPatch, KubeconfigGenerator, TenantControlPlane,
};

fn schema<K: CustomResourceExt>() -> Value {
    let crd = serde_json::to_value(K::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Every refusal of CEL in `table` and only those; what is accepted is also read as `K`.
fn check<K: CustomResourceExt + DeserializeOwned>(table: &Table) {
    let schema = schema::<K>();
    let mut wrong = Vec::new();
    for case in table.cases.iter().filter(|case| !case.by_schema) {
        let only_of_refusals = case.server_says.is_none() || case.refused.is_some();
        assert!(
            only_of_refusals,
            "{}: what does the server refuse?",
            case.name
        );
        let stored = table.stored(case).map(|mut object| {
            object["status"] = case.status.clone().unwrap_or(json!({}));
            object
        });
        let mut sent = table.sent(case);
        if let Some(stored) = &stored {
            sent["status"] = stored["status"].clone();
        }
        let outcome = Validator::new().validate_with_defaults(&schema, &sent, stored.as_ref());
        let errors = outcome.err().map(|errors| errors.to_string());
        match (&case.refused, errors) {
            (None, None) => {
                serde_json::from_value::<K>(sent).unwrap();
            }
            (Some(expected), Some(errors)) if errors.contains(expected) => {}
            (_, errors) => wrong.push(format!("{}: {errors:?}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tenant_control_planes_are_accepted_and_refused_as_the_table_says() {
    check::<TenantControlPlane>(&cases::tenant_control_planes());
}

#[test]
fn data_stores_are_accepted_and_refused_as_the_table_says() {
    check::<DataStore>(&cases::data_stores());
}

#[test]
fn kubeconfig_generators_are_accepted_and_refused_as_the_table_says() {
    check::<KubeconfigGenerator>(&cases::kubeconfig_generators());
}

#[test]
fn join_tokens_are_accepted_and_refused_as_the_table_says() {
    check::<JoinToken>(&cases::join_tokens());
}

#[test]
fn what_admission_accepts_the_operator_can_serve() {
    let table = cases::tenant_control_planes();
    for case in table.cases.iter().filter(|case| case.refused.is_none()) {
        let mut sent = table.sent(case);
        sent["metadata"]["uid"] = json!("1");
        let object: TenantControlPlane = serde_json::from_value(sent).unwrap();
        Tenant::validate(&object).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

/// An object may be older than the rule that would refuse it today.
#[test]
fn what_later_steps_rely_on_is_checked_again() {
    let relied_on = [
        "DNS-1035 label",
        "not supported",
        "a release such as",
        "CIDR notation",
        "at most one IPv4 and one IPv6",
        "overlap",
        "inside a Service network",
        "required with serviceType NodePort",
        "has no usable plugin",
        "extraArgs",
        "must be the storage id",
        "stable ones are always on",
        "api/all can only be true",
        "--service-account-issuer of extraArgs",
    ];
    let table = cases::tenant_control_planes();
    for text in relied_on {
        let refused = |case: &&cases::Case| {
            case.before.is_none()
                && case
                    .refused
                    .as_ref()
                    .is_some_and(|said| said.contains(text))
        };
        assert!(
            table.cases.iter().any(|case| refused(&case)),
            "no case is refused with {text}"
        );
        for case in table.cases.iter().filter(refused) {
            let mut sent = table.sent(case);
            sent["metadata"]["uid"] = json!("1");
            let object: TenantControlPlane = serde_json::from_value(sent).unwrap();
            assert!(
                Tenant::validate(&object).is_err(),
                "{}: accepted",
                case.name
            );
        }
    }
}

#[test]
fn the_kubernetes_service_keeps_its_address() {
    let mut table = cases::tenant_control_planes();
    table.base["metadata"]["uid"] = json!("1");
    table.base["spec"]["networkProfile"] = json!({ "dnsServiceIPs": ["10.96.0.1"] });
    let object: TenantControlPlane = serde_json::from_value(table.base).unwrap();
    let error = Tenant::validate(&object).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("10.96.0.1 belongs to the kubernetes Service")
    );
}

/// Client-side `kubectl apply` keeps the object as JSON in an annotation of at most 256 KiB; the
/// files of `crds/` are larger than that JSON and `cargo xtask gen` keeps them below the same bound.
#[test]
fn the_crds_are_small_enough_for_client_side_apply() {
    let tenant = serde_json::to_vec(&TenantControlPlane::crd())
        .unwrap()
        .len();
    let store = serde_json::to_vec(&DataStore::crd()).unwrap().len();
    println!("CRDs as JSON: TenantControlPlane {tenant} bytes, DataStore {store} bytes");
    assert!(tenant < 256 * 1024 && store < 256 * 1024);
}

#[test]
fn an_explicit_null_is_a_value() {
    let text = r#"{"op":"add","path":"/a","value":null}"#;
    let patch: JsonPatch = serde_json::from_str(text).unwrap();
    assert_eq!(patch.value, Some(Value::Null));
    assert_eq!(
        serde_json::to_value(&patch).unwrap(),
        serde_json::from_str::<Value>(text).unwrap()
    );
}

#[test]
fn every_message_of_a_rule_is_seen_in_a_refusal() {
    let tables = [
        cases::tenant_control_planes(),
        cases::data_stores(),
        cases::kubeconfig_generators(),
        cases::join_tokens(),
    ];
    let expected: Vec<String> = tables
        .iter()
        .flat_map(|table| &table.cases)
        .filter(|case| !case.by_schema)
        .filter_map(|case| case.refused.clone())
        .collect();
    let mut messages = Vec::new();
    collect_messages(&schema::<TenantControlPlane>(), &mut messages);
    collect_messages(&schema::<DataStore>(), &mut messages);
    collect_messages(&schema::<KubeconfigGenerator>(), &mut messages);
    collect_messages(&schema::<JoinToken>(), &mut messages);
    messages.retain(|message| !expected.iter().any(|text| message.contains(text)));
    assert!(
        messages.is_empty(),
        "no case is refused with: {messages:#?}"
    );
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    if let Some(rules) = schema["x-kubernetes-validations"].as_array() {
        messages.extend(
            rules
                .iter()
                .filter_map(|rule| rule["message"].as_str().map(str::to_owned)),
        );
    }
    match schema {
        Value::Object(fields) => fields
            .values()
            .for_each(|value| collect_messages(value, messages)),
        Value::Array(items) => items
            .iter()
            .for_each(|value| collect_messages(value, messages)),
        _ => {}
    }
}
