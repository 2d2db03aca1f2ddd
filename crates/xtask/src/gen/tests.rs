//! The generated manifest is one that an API server takes as it stands.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stoker_operator::rbac::rules;

use super::*;

fn documents() -> Vec<Value> {
    documents_of(&manifest().unwrap())
}

fn documents_of(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = text
        .split("---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    documents
}

/// Reads `document` as a `K` and fails when a field got lost on the way.
fn read<K: DeserializeOwned + Serialize>(document: &Value) -> K {
    let typed: K = serde_json::from_value(document.clone()).unwrap();
    let again = yaml::sorted(serde_json::to_value(&typed).unwrap());
    let name = &document["metadata"]["name"];
    assert!(
        again == yaml::sorted(document.clone()),
        "{name} has an unknown field"
    );
    typed
}

fn find<K: DeserializeOwned + Serialize>(kind: &str) -> K {
    read(
        documents()
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap(),
    )
}

#[test]
fn every_document_is_of_a_known_kind_and_has_only_known_fields() {
    let all = documents()
        .into_iter()
        .chain(documents_of(&with_images(GATEWAY)));
    for document in all {
        match document["kind"].as_str().unwrap() {
            "Namespace" => drop(read::<Namespace>(&document)),
            "CustomResourceDefinition" => drop(read::<CustomResourceDefinition>(&document)),
            "ServiceAccount" => drop(read::<ServiceAccount>(&document)),
            "ClusterRole" => drop(read::<ClusterRole>(&document)),
            "ClusterRoleBinding" => drop(read::<ClusterRoleBinding>(&document)),
            "Role" => drop(read::<Role>(&document)),
            "RoleBinding" => drop(read::<RoleBinding>(&document)),
            "Deployment" => drop(read::<Deployment>(&document)),
            "PodDisruptionBudget" => drop(read::<PodDisruptionBudget>(&document)),
            "Service" => drop(read::<Service>(&document)),
            "NetworkPolicy" => drop(read::<NetworkPolicy>(&document)),
            "ValidatingWebhookConfiguration" => {
                drop(read::<ValidatingWebhookConfiguration>(&document));
            }
            kind => panic!("{kind} is not expected"),
        }
    }
}

#[test]
fn the_roles_are_the_table() {
    let mut granted = find::<ClusterRole>("ClusterRole").rules.unwrap();
    for role in documents()
        .iter()
        .filter(|document| document["kind"] == "Role")
    {
        granted.extend(read::<Role>(role).rules.unwrap());
    }
    let granted: BTreeSet<_> = granted
        .into_iter()
        .map(|rule| {
            (
                rule.api_groups.unwrap(),
                rule.resources.unwrap(),
                rule.resource_names.unwrap_or_default(),
                rule.verbs,
            )
        })
        .collect();
    let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let table: BTreeSet<_> = rules()
        .iter()
        .map(|rule| {
            (
                strings(&[rule.group]),
                strings(rule.resources),
                strings(rule.names),
                strings(rule.verbs),
            )
        })
        .collect();
    assert_eq!(granted, table);
}

#[test]
fn the_operators_flags_are_those_that_it_has() {
    use clap::Parser as _;
    let deployment: Deployment = find("Deployment");
    let container = deployment
        .spec
        .unwrap()
        .template
        .spec
        .unwrap()
        .containers
        .remove(0);
    assert_eq!(container.image.as_deref(), Some(DEFAULT_IMAGE));
    let arguments = std::iter::once("stoker-operator".to_owned()).chain(container.args.unwrap());
    let arguments = stoker_operator::args::Args::try_parse_from(arguments).unwrap();
    let none = ["stoker-operator"];
    let default = stoker_operator::args::Args::try_parse_from(none).unwrap();
    assert_eq!(arguments.warden_image, default.warden_image);
    assert_eq!(arguments.node_image, default.node_image);
}

#[test]
fn the_gateways_flags_are_those_that_it_has_and_its_end_is_awaited() {
    use clap::Parser as _;
    let documents = documents_of(&with_images(GATEWAY));
    let mut found = documents
        .iter()
        .filter(|document| document["kind"] == "Deployment");
    let deployment: Deployment = read(found.next().unwrap());
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let arguments = pod.containers[0].args.clone().unwrap();
    let arguments = std::iter::once("stoker-gateway".to_owned()).chain(arguments);
    let arguments = stoker_gateway::args::Args::try_parse_from(arguments).unwrap();
    let drain = i64::from(arguments.drain_delay_seconds + arguments.drain_seconds);
    assert!(pod.termination_grace_period_seconds.unwrap() > drain);
}

#[test]
fn the_webhook_is_the_one_that_the_operator_serves_and_keeps() {
    let hook: ValidatingWebhookConfiguration = find("ValidatingWebhookConfiguration");
    let name = stoker_operator::admission::CONFIGURATION;
    assert_eq!(hook.metadata.name.as_deref(), Some(name));
    let webhooks = hook.webhooks.unwrap();
    let reference = webhooks[0].client_config.service.as_ref().unwrap();
    let path = reference.path.as_deref();
    assert_eq!(path, Some(stoker_operator::admission::TENANTS));
    let service: Service = find("Service");
    assert_eq!(
        service.metadata.name.as_deref(),
        Some(reference.name.as_str())
    );
    let port = service.spec.unwrap().ports.unwrap().remove(0);
    assert_eq!(Some(port.port), reference.port);
    let target = serde_json::to_value(port.target_port).unwrap();
    let deployment: Deployment = find("Deployment");
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let mut ports = pod.containers[0].ports.clone().unwrap().into_iter();
    let port = ports
        .find(|port| port.name.as_deref() == target.as_str())
        .unwrap();
    let flag = format!("--webhook-bind-address=0.0.0.0:{}", port.container_port);
    assert!(pod.containers[0].args.as_ref().unwrap().contains(&flag));
}

#[test]
fn another_image_replaces_the_default_once() {
    assert_eq!(manifest().unwrap().matches(DEFAULT_IMAGE).count(), 1);
    let wrong = "two images";
    assert!(print_manifest(wrong, WARDEN_IMAGE, NODE_IMAGE).is_err());
    assert!(print_manifest(DEFAULT_IMAGE, wrong, NODE_IMAGE).is_err());
    assert!(print_manifest(DEFAULT_IMAGE, WARDEN_IMAGE, wrong).is_err());
}

#[test]
fn the_same_bytes_come_out_twice() {
    assert_eq!(manifest().unwrap(), manifest().unwrap());
}

#[test]
fn the_files_in_the_repository_are_up_to_date() {
    run(true).unwrap();
}
