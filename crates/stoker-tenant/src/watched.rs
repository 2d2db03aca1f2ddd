//! The kinds that are built, for those who watch them.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};

/// A kind of which there are objects of ours in a tenant cluster, selected by the label
/// [`stoker_api::labels::MANAGED_BY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedKind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural name, as in paths.
    pub plural: &'static str,
    /// Whether objects have a namespace.
    pub namespaced: bool,
}

/// Every kind in [`crate::TenantObjects`], in the order of its fields.
#[must_use]
pub const fn watched_kinds() -> &'static [WatchedKind] {
    const KINDS: &[WatchedKind] = &[
        namespaced::<ConfigMap>(),
        namespaced::<ServiceAccount>(),
        namespaced::<Role>(),
        namespaced::<RoleBinding>(),
        cluster_wide::<ClusterRole>(),
        cluster_wide::<ClusterRoleBinding>(),
        namespaced::<Service>(),
        namespaced::<Endpoints>(),
        namespaced::<EndpointSlice>(),
        namespaced::<Deployment>(),
        namespaced::<DaemonSet>(),
    ];
    KINDS
}

const fn namespaced<K: Resource<Scope = NamespaceResourceScope>>() -> WatchedKind {
    kind::<K>(true)
}

const fn cluster_wide<K: Resource<Scope = ClusterResourceScope>>() -> WatchedKind {
    kind::<K>(false)
}

const fn kind<K: Resource>(namespaced: bool) -> WatchedKind {
    WatchedKind {
        group: K::GROUP,
        version: K::VERSION,
        kind: K::KIND,
        plural: K::URL_PATH_SEGMENT,
        namespaced,
    }
}
