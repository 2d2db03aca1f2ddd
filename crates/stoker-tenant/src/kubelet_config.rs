//! `kube-system/kubelet-config`: the `KubeletConfiguration` that every joining node starts from
//! (`kubeadm init phase upload-config kubelet`).

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};
use stoker_api::tenant::Tenant;

use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map};
use crate::patch::{self, PatchError};
use crate::{TenantObjects, component, rbac, yaml};

const NAME: &str = "kubelet-config";
const PATCHES: &str = "spec.kubernetes.kubelet.configurationJSONPatches";

pub(crate) fn add(objects: &mut TenantObjects, tenant: &Tenant) -> Result<(), PatchError> {
    let config_map = ConfigMap {
        metadata: namespaced(component::KUBELET_CONFIG, KUBE_SYSTEM, NAME),
        data: Some(string_map(&[(
            "kubelet",
            &yaml::to_yaml(&document(tenant)?),
        )])),
        ..ConfigMap::default()
    };
    let unchanged = tenant.kubelet.configuration_json_patches.is_empty();
    objects.config_maps.push(if unchanged {
        yaml::sign(config_map)
    } else {
        config_map
    });
    let (role, binding) = rbac::config_map_reader(
        component::KUBELET_CONFIG,
        KUBE_SYSTEM,
        "kubeadm:kubelet-config",
        NAME,
        vec![rbac::group(rbac::NODES), rbac::group(rbac::BOOTSTRAPPERS)],
    );
    objects.roles.push(role);
    objects.role_bindings.push(binding);
    Ok(())
}

/// The patched `KubeletConfiguration`, of which only fields that somebody set are kept: a kubelet
/// older than the control plane refuses fields that it does not know.
///
/// Patches see the document as kubeadm prints it, empty fields included, so that those written
/// against a running cluster's `kubelet-config` (`replace /syncFrequency`,
/// `add /logging/verbosity`, `remove /crashLoopBackOff`) apply here too.
pub(crate) fn document(tenant: &Tenant) -> Result<Value, PatchError> {
    let mut printed = empty();
    overlay(&mut printed, &ours(tenant));
    let mut patched = patch::apply(PATCHES, printed, &tenant.kubelet.configuration_json_patches)?;
    prune(&mut patched, &empty());
    Ok(patched)
}

/// What kubeadm sets on every cluster. `cgroupDriver` is left to the node's own kubeadm (systemd)
/// or its patches unless the spec asks for one.
fn ours(tenant: &Tenant) -> Value {
    let mut document = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/pki/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": tenant.network.dns_service_ips,
        "clusterDomain": tenant.network.cluster_domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "kind": "KubeletConfiguration",
        "rotateCertificates": true,
        // The operator approves what they ask for; with one that they signed themselves nobody can tell whom logs and
        // commands go through.
        "serverTLSBootstrap": true,
        "staticPodPath": "/etc/kubernetes/manifests",
    });
    if let Some(driver) = tenant.kubelet.cgroupfs {
        document["cgroupDriver"] = json!(driver);
    }
    if !tenant.feature_gates.is_empty() {
        document["featureGates"] = json!(tenant.feature_gates);
    }
    document
}

/// Fields that kubeadm prints without anybody having set them, the same from 1.33 to 1.36. Each
/// means what its absence means: the kubelet's default.
fn empty() -> Value {
    json!({
        "authentication": { "webhook": { "cacheTTL": "0s" } },
        "authorization": { "webhook": { "cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s" } },
        "containerRuntimeEndpoint": "",
        "cpuManagerReconcilePeriod": "0s",
        "crashLoopBackOff": {},
        "evictionPressureTransitionPeriod": "0s",
        "fileCheckFrequency": "0s",
        "httpCheckFrequency": "0s",
        "imageMaximumGCAge": "0s",
        "imageMinimumGCAge": "0s",
        "logging": {
            "flushFrequency": 0,
            "options": { "json": { "infoBufferSize": "0" }, "text": { "infoBufferSize": "0" } },
            "verbosity": 0,
        },
        "memorySwap": {},
        "nodeStatusReportFrequency": "0s",
        "nodeStatusUpdateFrequency": "0s",
        "runtimeRequestTimeout": "0s",
        "shutdownGracePeriod": "0s",
        "shutdownGracePeriodCriticalPods": "0s",
        "streamingConnectionIdleTimeout": "0s",
        "syncFrequency": "0s",
        "volumeStatsAggPeriod": "0s",
    })
}

/// Puts `over` over `document`, object by object.
fn overlay(document: &mut Value, over: &Value) {
    match (document, over) {
        (Value::Object(document), Value::Object(over)) => {
            for (key, value) in over {
                overlay(document.entry(key).or_insert(Value::Null), value);
            }
        }
        (document, over) => *document = over.clone(),
    }
}

/// Takes out of `document` what is as in `empty`.
fn prune(document: &mut Value, empty: &Value) {
    let (Value::Object(document), Value::Object(empty)) = (document, empty) else {
        return;
    };
    for (key, unset) in empty {
        if let Some(value) = document.get_mut(key) {
            prune(value, unset);
            let hollow = unset.is_object() && value.as_object().is_some_and(Map::is_empty);
            if hollow || value == unset {
                document.remove(key);
            }
        }
    }
}
