//! `kube-system/kubeadm-config`: the `ClusterConfiguration` that `kubeadm join` and
//! `kubeadm upgrade node` read first (`kubeadm init phase upload-config kubeadm`).

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use stoker_api::tenant::Tenant;

use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map};
use crate::release::IMAGE_REPOSITORY;
use crate::{Access, TenantObjects, component, rbac, yaml};

const NAME: &str = "kubeadm-config";

pub(crate) fn add(objects: &mut TenantObjects, tenant: &Tenant, access: &Access) {
    objects.config_maps.push(ConfigMap {
        metadata: namespaced(component::KUBEADM_CONFIG, KUBE_SYSTEM, NAME),
        data: Some(string_map(&[(
            "ClusterConfiguration",
            &cluster_configuration(tenant, access),
        )])),
        ..ConfigMap::default()
    });
    let (role, binding) = rbac::config_map_reader(
        component::KUBEADM_CONFIG,
        KUBE_SYSTEM,
        "kubeadm:nodes-kubeadm-config",
        NAME,
        vec![rbac::group(rbac::BOOTSTRAPPERS), rbac::group(rbac::NODES)],
    );
    objects.roles.push(role);
    objects.role_bindings.push(binding);
}

/// Everything that kubeadm writes, its defaults included. `etcd.local` is kubeadm's default too:
/// workers ignore it, and the real store is nothing a tenant may learn.
fn cluster_configuration(tenant: &Tenant, access: &Access) -> String {
    let network = &tenant.network;
    yaml::to_yaml(&json!({
        "apiServer": {},
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "caCertificateValidityPeriod": "87600h0m0s",
        "certificateValidityPeriod": "8760h0m0s",
        "certificatesDir": "/etc/kubernetes/pki",
        "clusterName": "kubernetes",
        "controlPlaneEndpoint": access.endpoint(),
        "controllerManager": {},
        "dns": {},
        "encryptionAlgorithm": "ECDSA-P256",
        "etcd": { "local": { "dataDir": "/var/lib/etcd" } },
        "imageRepository": IMAGE_REPOSITORY,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": tenant.version.to_string(),
        "networking": {
            "dnsDomain": network.cluster_domain,
            "podSubnet": network.pod_cidr_flag(),
            "serviceSubnet": network.service_cidr_flag(),
        },
        "proxy": {},
        "scheduler": {},
    }))
}
