//! How a node gets in, and who administers (`kubeadm init phase bootstrap-token` without a token,
//! and the binding of `admin.conf`'s group).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use stoker_api::host_agent::KEY;
use stoker_api::tenant::Tenant;

use crate::object_meta::{KUBE_PUBLIC, namespaced, string_map};
use crate::{Access, TenantObjects, component, host_agent, rbac, yaml};

const CLUSTER_INFO: &str = "cluster-info";
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";
const GET_NODES: &str = "kubeadm:get-nodes";
/// Common name of the certificate with which kubeadm's API servers call kubelets.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

pub(crate) fn add(objects: &mut TenantObjects, tenant: &Tenant, access: &Access) {
    add_node_rights(objects);
    add_cluster_info(objects, tenant, access);
    objects
        .cluster_role_bindings
        .push(rbac::cluster_role_binding(
            component::CLUSTER_ADMINS,
            CLUSTER_ADMINS,
            "cluster-admin",
            rbac::group(CLUSTER_ADMINS),
        ));
}

fn add_node_rights(objects: &mut TenantObjects) {
    objects.cluster_roles.push(rbac::cluster_role(
        component::BOOTSTRAP_TOKEN,
        GET_NODES,
        vec![rbac::rule("", &["nodes"], &["get"])],
    ));
    let bindings = [
        (GET_NODES, GET_NODES, rbac::group(rbac::BOOTSTRAPPERS)),
        (
            "kubeadm:kubelet-bootstrap",
            "system:node-bootstrapper",
            rbac::group(rbac::BOOTSTRAPPERS),
        ),
        (
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            rbac::group(rbac::BOOTSTRAPPERS),
        ),
        (
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            rbac::group(rbac::NODES),
        ),
        // kubeadm 1.36 and 1.33.13 have it, 1.34.4 and 1.35.4 do not: there the certificate's
        // group is enough.
        (
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            rbac::user(KUBELET_CLIENT),
        ),
    ];
    for (name, role, subject) in bindings {
        objects
            .cluster_role_bindings
            .push(rbac::cluster_role_binding(
                component::BOOTSTRAP_TOKEN,
                name,
                role,
                subject,
            ));
    }
}

/// `kube-public/cluster-info`, which a node without credentials reads first. The controller
/// manager's bootstrap signer adds a `jws-kubeconfig-<token id>` key per token: only
/// `data.kubeconfig` is ours, and what `stoker-node run` is asked for.
fn add_cluster_info(objects: &mut TenantObjects, tenant: &Tenant, access: &Access) {
    let kubeconfig = yaml::to_yaml(&json!({
        "apiVersion": "v1",
        "clusters": [{
            "cluster": {
                "certificate-authority-data": STANDARD.encode(&access.certificate_authority),
                "server": access.url(),
            },
            "name": "",
        }],
        "contexts": null,
        "current-context": "",
        "kind": "Config",
        "users": null,
    }));
    let mut data = string_map(&[("kubeconfig", &kubeconfig)]);
    let orders = host_agent::orders(tenant, access);
    if !orders.is_empty() {
        data.insert(KEY.to_owned(), json!(orders).to_string());
    }
    objects.config_maps.push(ConfigMap {
        metadata: namespaced(component::CLUSTER_INFO, KUBE_PUBLIC, CLUSTER_INFO),
        data: Some(data),
        ..ConfigMap::default()
    });
    let (role, binding) = rbac::config_map_reader(
        component::CLUSTER_INFO,
        KUBE_PUBLIC,
        "kubeadm:bootstrap-signer-clusterinfo",
        CLUSTER_INFO,
        vec![rbac::user("system:anonymous")],
    );
    objects.roles.push(role);
    objects.role_bindings.push(binding);
}
