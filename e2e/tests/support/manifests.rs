//! What installation manifests hold.

use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Api, Client};
use serde_json::Value;

/// Creates the objects of a manifest whose API group begins so.
pub(crate) async fn create(client: &Client, manifest: &str, groups: &[&str]) {
    for text in manifest.split("---\n") {
        let document: Value = serde_saphyr::from_str(text).unwrap();
        let Ok(types) = serde_json::from_value::<TypeMeta>(document.clone()) else {
            continue;
        };
        let is_wanted = |group: &&str| types.api_version.starts_with(group);
        if !groups.iter().any(is_wanted) {
            continue;
        }
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
        let object: DynamicObject = serde_json::from_value(document).unwrap();
        let objects: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        let params = PostParams::default();
        objects.create(&params, &object).await.unwrap();
    }
}
