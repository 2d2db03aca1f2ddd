//! Tenants as every suite makes them.

use serde_json::{Value, json};

/// The smallest tenant of a name, its spec changed by the JSON merge patch `change`.
pub(crate) fn smallest(name: &str, version: &str, service_type: &str, change: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": name },
        "spec": {
            "controlPlane": {
                "deployment": { "replicas": 1 },
                "service": { "serviceType": service_type },
            },
            "kubernetes": { "version": version, "kubelet": {} },
            "addons": { "coreDNS": {}, "kubeProxy": {} },
            "deletion": { "dataRetentionSeconds": 0 },
        },
    });
    json_patch::merge(&mut object["spec"], change);
    object
}
