//! Metadata that all objects of a tenant share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use stoker_api::labels;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::AdditionalMetadata;

/// The contract's label for an object's role within its tenant.
pub const COMPONENT: &str = "stoker.dev/component";

/// The role of the pods and of the objects around them.
pub(crate) const CONTROL_PLANE: &str = "control-plane";

/// Name, namespace, labels and owner of an object of `tenant`.
pub(crate) fn metadata(tenant: &Tenant, name: &str, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(tenant.namespace.clone()),
        labels: Some(object_labels(tenant, component)),
        owner_references: Some(vec![owner(tenant)]),
        ..ObjectMeta::default()
    }
}

/// `ours` with what people add; where both say something, ours stays.
pub(crate) fn with_additional(mut ours: ObjectMeta, added: &AdditionalMetadata) -> ObjectMeta {
    ours.labels = merged(ours.labels, &added.labels);
    ours.annotations = merged(ours.annotations, &added.annotations);
    ours
}

fn merged(
    ours: Option<BTreeMap<String, String>>,
    added: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let mut all = added.clone();
    all.extend(ours.unwrap_or_default());
    (!all.is_empty()).then_some(all)
}

/// Labels of an object of `tenant`.
pub(crate) fn object_labels(tenant: &Tenant, component: &str) -> BTreeMap<String, String> {
    labels_of(&tenant.name, component)
}

/// Labels of an object of the tenant called `tenant`.
pub(crate) fn labels_of(tenant: &str, component: &str) -> BTreeMap<String, String> {
    [
        (labels::NAME, "tenant-control-plane"),
        (labels::INSTANCE, tenant),
        (labels::COMPONENT, component),
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::PART_OF, "stoker"),
        (labels::PROJECT, "stoker"),
        (labels::TENANT, tenant),
        (COMPONENT, component),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Selects the control-plane pods by the tenant's name alone: the contract's selector, which cannot
/// change on a Deployment.
pub(crate) fn pod_selector(tenant: &Tenant) -> LabelSelector {
    LabelSelector {
        match_labels: Some(pod_match(tenant)),
        ..LabelSelector::default()
    }
}

/// [`pod_selector`] as a map.
pub(crate) fn pod_match(tenant: &Tenant) -> BTreeMap<String, String> {
    [(labels::TENANT.to_owned(), tenant.name.clone())].into()
}

fn owner(tenant: &Tenant) -> OwnerReference {
    owner_of(&tenant.name, &tenant.uid)
}

/// The reference to the tenant called `tenant`.
pub(crate) fn owner_of(tenant: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "stoker.dev/v1alpha1".to_owned(),
        kind: "TenantControlPlane".to_owned(),
        name: tenant.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
