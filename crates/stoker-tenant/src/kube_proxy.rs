//! kube-proxy (`kubeadm init phase addon kube-proxy`).

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use serde_json::{Value, json};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::KubeProxyAddon;

use crate::component::KUBE_PROXY;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};
use crate::patch::{self, PatchError};
use crate::{Access, TenantObjects, rbac, release, yaml};

mod daemon_set;

/// Name of the `ServiceAccount`, `ConfigMap`, Role and `DaemonSet`.
const NAME: &str = "kube-proxy";
const PATCHES: &str = "spec.addons.kubeProxy.configurationJSONPatches";
const CONFIG_KEY: &str = "config.conf";

pub(crate) fn add(
    objects: &mut TenantObjects,
    tenant: &Tenant,
    addon: &KubeProxyAddon,
    access: &Access,
) -> Result<(), PatchError> {
    let config_map = ConfigMap {
        metadata: with_labels(namespaced(KUBE_PROXY, KUBE_SYSTEM, NAME), &[("app", NAME)]),
        data: Some(string_map(&[
            (CONFIG_KEY, &yaml::to_yaml(&document(tenant, addon)?)),
            ("kubeconfig.conf", &kubeconfig(access)),
        ])),
        ..ConfigMap::default()
    };
    let unchanged = addon.configuration_json_patches.is_empty();
    objects.config_maps.push(if unchanged {
        yaml::sign(config_map)
    } else {
        config_map
    });
    objects.service_accounts.push(ServiceAccount {
        metadata: namespaced(KUBE_PROXY, KUBE_SYSTEM, NAME),
        ..ServiceAccount::default()
    });
    objects
        .cluster_role_bindings
        .push(rbac::cluster_role_binding(
            KUBE_PROXY,
            "kubeadm:node-proxier",
            "system:node-proxier",
            rbac::service_account(NAME),
        ));
    let (role, binding) = rbac::config_map_reader(
        KUBE_PROXY,
        KUBE_SYSTEM,
        NAME,
        NAME,
        vec![rbac::group(rbac::BOOTSTRAPPERS)],
    );
    objects.roles.push(role);
    objects.role_bindings.push(binding);
    let image = release::kube_proxy_image(&addon.image, tenant.version);
    objects.daemon_sets.push(daemon_set::build(image));
    Ok(())
}

fn kubeconfig(access: &Access) -> String {
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    yaml::to_yaml(&json!({
        "apiVersion": "v1",
        "clusters": [{
            "cluster": {
                "certificate-authority": format!("{ACCOUNT}/ca.crt"),
                "server": access.url(),
            },
            "name": "default",
        }],
        "contexts": [{
            "context": { "cluster": "default", "namespace": "default", "user": "default" },
            "name": "default",
        }],
        "current-context": "default",
        "kind": "Config",
        "users": [{ "name": "default", "user": { "tokenFile": format!("{ACCOUNT}/token") } }],
    }))
}

/// The patched `KubeProxyConfiguration`, with every field that kubeadm prints, the same from 1.33
/// to 1.36: people's scripts look for `strictARP: false` and `mode: ""` there, and this kube-proxy
/// is as new as the control plane.
pub(crate) fn document(tenant: &Tenant, addon: &KubeProxyAddon) -> Result<Value, PatchError> {
    let mut document = printed_by_kubeadm();
    let v6_first = matches!(tenant.network.pod_cidrs.first(), Some(net) if net.addr().is_ipv6());
    document["bindAddress"] = json!(if v6_first { "::" } else { "0.0.0.0" });
    document["clusterCIDR"] = json!(tenant.network.pod_cidr_flag());
    patch::apply(PATCHES, document, &addon.configuration_json_patches)
}

fn printed_by_kubeadm() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "bindAddressHardFail": false,
        "clientConnection": {
            "acceptContentTypes": "",
            "burst": 0,
            "contentType": "",
            "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf",
            "qps": 0,
        },
        "configSyncPeriod": "0s",
        "conntrack": {
            "maxPerCore": null,
            "min": null,
            "tcpBeLiberal": false,
            "tcpCloseWaitTimeout": null,
            "tcpEstablishedTimeout": null,
            "udpStreamTimeout": "0s",
            "udpTimeout": "0s",
        },
        "detectLocal": { "bridgeInterface": "", "interfaceNamePrefix": "" },
        "detectLocalMode": "",
        "enableProfiling": false,
        "healthzBindAddress": "",
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": null,
            "masqueradeAll": false,
            "masqueradeBit": null,
            "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
        "ipvs": {
            "excludeCIDRs": null,
            "minSyncPeriod": "0s",
            "scheduler": "",
            "strictARP": false,
            "syncPeriod": "0s",
            "tcpFinTimeout": "0s",
            "tcpTimeout": "0s",
            "udpTimeout": "0s",
        },
        "kind": "KubeProxyConfiguration",
        "logging": {
            "flushFrequency": 0,
            "options": { "json": { "infoBufferSize": "0" }, "text": { "infoBufferSize": "0" } },
            "verbosity": 0,
        },
        "metricsBindAddress": "",
        "mode": "",
        "nftables": {
            "masqueradeAll": false,
            "masqueradeBit": null,
            "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
        "nodePortAddresses": null,
        "oomScoreAdj": null,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
        "winkernel": {
            "enableDSR": false,
            "forwardHealthCheckVip": false,
            "networkName": "",
            "rootHnsEndpointName": "",
            "sourceVip": "",
        },
    })
}
