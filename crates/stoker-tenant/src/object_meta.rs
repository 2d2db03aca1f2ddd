//! Names and labels of the objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stoker_api::labels;

/// Namespace of the cluster's own parts.
pub(crate) const KUBE_SYSTEM: &str = "kube-system";
/// Namespace that everyone may read.
pub(crate) const KUBE_PUBLIC: &str = "kube-public";

/// Metadata of an object without a namespace, with our labels.
pub(crate) fn cluster_wide(component: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(string_map(&[
            (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
            (labels::PROJECT, labels::MANAGED_BY_VALUE),
            (labels::COMPONENT, component),
        ])),
        ..ObjectMeta::default()
    }
}

/// Metadata of an object in `namespace`, with our labels.
pub(crate) fn namespaced(component: &str, namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        ..cluster_wide(component, name)
    }
}

/// Adds `more` to the labels of `meta`.
pub(crate) fn with_labels(mut meta: ObjectMeta, more: &[(&str, &str)]) -> ObjectMeta {
    meta.labels.get_or_insert_default().extend(string_map(more));
    meta
}

/// An owned map of `entries`.
pub(crate) fn string_map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
