//! The objects inside a tenant cluster: what the phases of `kubeadm init` would have put there, so
//! that an unmodified `kubeadm join` works and a tenant sees the cluster it would have made itself.
//!
//! This crate turns a checked [`Tenant`] and the way to reach its API server into objects. It holds
//! no client, no clock and no random source, and it never looks at what is already in the cluster:
//! every object lists only the fields that Stoker sets, to be applied server-side, so that what
//! others add (the `jws-kubeconfig-*` keys of `cluster-info`, a node's own fields) survives.
//!
//! ```text
//! Tenant + Access ─► build ─► kubeadm-config, kubelet-config      what `kubeadm join` reads
//!                             cluster-info, bootstrap RBAC         how a node gets in
//!                             the kubernetes Endpoints and slices  how pods reach the API server
//!                             CoreDNS, kube-proxy, agents of the
//!                             tunnel, API priority                 when the spec asks for them
//! ```
//!
//! Followed: kubeadm 1.33.13, 1.34.4, 1.35.4 and 1.36.3 (`cmd/kubeadm/app/phases`).

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use stoker_api::tenant::Tenant;

mod access;
mod accounts;
mod api_priority;
mod bootstrap;
pub mod component;
mod core_dns;
mod endpoints;
mod host_agent;
mod joining;
mod konnectivity;
mod kube_proxy;
mod kubeadm_config;
mod kubelet_config;
mod node_container;
mod node_listener;
mod object_meta;
mod patch;
mod rbac;
mod release;
#[cfg(test)]
mod tests;
mod watched;
mod yaml;

pub use access::{Access, NodeListeners, TunnelAgents};
pub use core_dns::left_to_tenant;
pub use joining::{JoinSecret, join_rights, join_secret, join_secret_name};
pub use konnectivity::NAME as TUNNEL_AGENT_NAME;
pub use node_listener::NODE_LISTENER_NAME;
pub use patch::PatchError;
pub use watched::{WatchedKind, watched_kinds, watched_kinds_of};

/// The objects of one tenant cluster, by kind. Apart from [`Endpoints`] and slices, whose Service
/// the API server makes, none needs another to be there first but its namespace (`kube-system`,
/// `kube-public`), which the API server makes within a second of its birth.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are named after the kinds they hold"
)]
pub struct TenantObjects {
    pub config_maps: Vec<ConfigMap>,
    pub service_accounts: Vec<ServiceAccount>,
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub services: Vec<Service>,
    pub endpoints: Vec<Endpoints>,
    pub endpoint_slices: Vec<EndpointSlice>,
    pub deployments: Vec<Deployment>,
    pub daemon_sets: Vec<DaemonSet>,
    pub priority_levels: Vec<PriorityLevelConfiguration>,
    pub flow_schemas: Vec<FlowSchema>,
}

/// Builds every object that belongs into `tenant`'s cluster, reached as `access` says. The same
/// input gives the same objects in the same order. An object with our labels in the cluster that
/// is not among them (an add-on taken out of the spec) is to be removed.
///
/// # Errors
/// The first of the user's JSON patches that does not apply.
pub fn build(tenant: &Tenant, access: &Access) -> Result<TenantObjects, PatchError> {
    let mut objects = TenantObjects::default();
    kubeadm_config::add(&mut objects, tenant, access);
    kubelet_config::add(&mut objects, tenant)?;
    bootstrap::add(&mut objects, tenant, access);
    endpoints::add(&mut objects, tenant, access);
    if let Some(asked) = &tenant.api_priority {
        api_priority::add(&mut objects, asked);
    }
    if let Some(addon) = &tenant.addons.core_dns {
        core_dns::add(&mut objects, tenant, addon);
    }
    if let Some(addon) = &tenant.addons.kube_proxy {
        kube_proxy::add(&mut objects, tenant, addon, access)?;
    }
    if let Some(asked) = &tenant.addons.konnectivity {
        konnectivity::add(&mut objects, asked, access);
    }
    if let Some(listeners) = &access.listeners {
        node_listener::add(&mut objects, listeners, access);
    }
    Ok(objects)
}

/// Checks `tenant`'s JSON patches before anything is written: [`build`] fails exactly when this
/// does.
///
/// # Errors
/// The first patch that does not apply.
pub fn check_patches(tenant: &Tenant) -> Result<(), PatchError> {
    if !tenant.kubelet.configuration_json_patches.is_empty() {
        kubelet_config::document(tenant)?;
    }
    let kube_proxy = tenant.addons.kube_proxy.as_ref();
    if let Some(addon) = kube_proxy.filter(|addon| !addon.configuration_json_patches.is_empty()) {
        kube_proxy::document(tenant, addon)?;
    }
    Ok(())
}
