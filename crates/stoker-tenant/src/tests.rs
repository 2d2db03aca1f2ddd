//! What is built, against golden files and against the user's patches.

mod accounts;
mod endpoints;
mod golden;
mod images;
mod patches;
mod sameness;

use std::net::IpAddr;

use serde_json::{Value, json};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;

use crate::{Access, TenantObjects, TunnelAgents, build, watched_kinds, watched_kinds_of};

/// The tenant of a manifest's `spec`, YAML indented by nothing.
fn tenant(spec: &str) -> Tenant {
    let indented = spec.replace('\n', "\n  ");
    let manifest = format!(
        "apiVersion: stoker.dev/v1alpha1
kind: TenantControlPlane
metadata: {{ name: acme, namespace: acme, uid: 0b7f1d3e-0000-4000-8000-000000000001 }}
spec:
  {indented}"
    );
    let object: TenantControlPlane = serde_saphyr::from_str(&manifest).unwrap();
    Tenant::validate(&object).unwrap()
}

/// A tenant with nothing but its version and the `more` fields of its spec.
fn plain(version: &str, more: &str) -> Tenant {
    tenant(&format!(
        "controlPlane: {{ service: {{ serviceType: ClusterIP }} }}
kubernetes: {{ version: {version}, kubelet: {{}} }}
{more}"
    ))
}

fn access(host: &str, addresses: &[&str]) -> Access {
    Access {
        host: host.to_owned(),
        port: 6443,
        direct_port: 6443,
        tunnel: Some(TunnelAgents {
            server: format!("{host}:8132"),
            image: "registry.example.com/stoker-node:v1".to_owned(),
        }),
        addresses: addresses
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect(),
        listeners: None,
        certificate_authority: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
            .to_owned(),
    }
}

/// Every object as JSON, in the order of the fields.
fn all(objects: &TenantObjects) -> Vec<Value> {
    fn each<K: serde::Serialize>(list: &[K]) -> impl Iterator<Item = Value> {
        list.iter()
            .map(|object| serde_json::to_value(object).unwrap())
    }
    each(&objects.config_maps)
        .chain(each(&objects.service_accounts))
        .chain(each(&objects.roles))
        .chain(each(&objects.role_bindings))
        .chain(each(&objects.cluster_roles))
        .chain(each(&objects.cluster_role_bindings))
        .chain(each(&objects.services))
        .chain(each(&objects.endpoints))
        .chain(each(&objects.endpoint_slices))
        .chain(each(&objects.deployments))
        .chain(each(&objects.daemon_sets))
        .chain(each(&objects.priority_levels))
        .chain(each(&objects.flow_schemas))
        .collect()
}

/// A document inside a `ConfigMap`.
fn document(objects: &TenantObjects, config_map: &str, key: &str) -> Value {
    let config_map = objects
        .config_maps
        .iter()
        .find(|object| object.metadata.name.as_deref() == Some(config_map))
        .unwrap();
    serde_saphyr::from_str(&config_map.data.as_ref().unwrap()[key]).unwrap()
}

#[test]
fn every_object_has_our_labels_and_a_watched_kind() {
    let mut tenant = plain("v1.36.3", "addons: { coreDNS: {}, kubeProxy: {} }");
    let few: Vec<_> = watched_kinds_of(false).collect();
    assert_eq!(few.len() + 2, watched_kinds().len());
    let preset = json!({ "preset": "Agents", "namespaces": ["agents"] });
    tenant.api_priority = serde_json::from_value(preset).unwrap();
    assert!(watched_kinds_of(true).eq(watched_kinds()));
    let objects = build(
        &tenant,
        &access("192.0.2.10", &["192.0.2.10", "2001:db8::1"]),
    )
    .unwrap();
    let mut kinds: Vec<_> = watched_kinds().to_vec();
    for object in all(&objects) {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], "stoker", "{object}");
        assert_eq!(labels["stoker.dev/project"], "stoker", "{object}");
        assert!(
            labels["app.kubernetes.io/component"].is_string(),
            "{object}"
        );
        let watched = watched_kinds()
            .iter()
            .find(|watched| object["kind"] == watched.kind);
        let watched = watched.unwrap_or_else(|| panic!("not watched: {object}"));
        let api_version = format!("{}/{}", watched.group, watched.version);
        assert_eq!(object["apiVersion"], api_version.trim_start_matches('/'));
        let has_namespace = object["metadata"].get("namespace").is_some();
        assert_eq!(has_namespace, watched.namespaced, "{object}");
        kinds.retain(|kind| kind != watched);
    }
    assert_eq!(kinds, [], "watched, but nothing of the kind is built");
}
