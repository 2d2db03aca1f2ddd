//! Finalizers on objects that others write too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;

use crate::FIELD_MANAGER;

/// Puts `finalizer` on the object of which `read` is the metadata, or takes it off; other finalizers stay. Written only
/// in the version that was read. That there is nothing left to take it off is success.
///
/// # Errors
/// The API server refused; with 409 when somebody else changed the object since it was read.
pub(crate) async fn set_finalizer<K>(
    api: &Api<K>,
    read: &ObjectMeta,
    finalizer: &str,
    wanted: bool,
) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut finalizers = read.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|name| name == finalizer);
    // To what is being deleted nothing can be added.
    if has == wanted || (wanted && read.deletion_timestamp.is_some()) {
        return Ok(());
    }
    if wanted {
        finalizers.push(finalizer.to_owned());
    } else {
        finalizers.retain(|name| name != finalizer);
    }
    let patch = serde_json::json!({ "metadata": {
        "finalizers": finalizers, "resourceVersion": read.resource_version,
    }});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let name = read.name.as_deref().unwrap_or_default();
    match api
        .patch_metadata(name, &params, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() && !wanted => Ok(()),
        Err(error) => Err(error),
    }
}
