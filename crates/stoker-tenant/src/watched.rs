//! The kinds that are built, for those who watch them.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
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
        cluster_wide::<PriorityLevelConfiguration>(),
        cluster_wide::<FlowSchema>(),
    ];
    KINDS
}

/// The kinds of which a tenant has objects, with those of API priority or without: a watch costs both sides, and few ask
/// for that.
pub fn watched_kinds_of(api_priority: bool) -> impl Iterator<Item = &'static WatchedKind> {
    let kinds = watched_kinds().iter();
    kinds.filter(move |kind| api_priority || kind.group != FlowSchema::GROUP)
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
