//! The kind `TLSRoute` of the Gateway API, of which only the names and versions matter here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// Its definition; the first version is stored.
pub(crate) fn crd(versions: &[&str]) -> CustomResourceDefinition {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = |(index, name): (usize, &&str)| -> Value {
        json!({
            "name": name, "served": true, "storage": index == 0,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": anything, "status": anything },
            } },
        })
    };
    let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
    let definition = json!({
        "metadata": {
            "name": "tlsroutes.gateway.networking.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, a test" },
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": { "kind": "TLSRoute", "listKind": "TLSRouteList", "plural": "tlsroutes", "singular": "tlsroute" },
            "versions": versions,
        },
    });
    serde_json::from_value(definition).unwrap()
}
