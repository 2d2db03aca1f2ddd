//! Writing the status of an object of ours.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::desired::ObjectKey;
use crate::error::Error;

/// Owner of every status field. Another name than that of other fields, so that the two writers
/// never take fields from each other.
const FIELD_MANAGER: &str = "stoker-status";

/// Applies `new` as the whole status of `object`, unless it equals `old` apart from
/// `lastTransitionTime`s. Returns whether it was written. An object that was deleted, or deleted
/// and made again since it was read, gets no status.
///
/// # Errors
/// [`Error::WriteStatus`], with [`Error::is_not_found`] when the object is gone and the category
/// `Conflict` when another one has its name; [`Error::Serialize`].
pub async fn write_status<K, S>(
    client: &Client,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()>,
    S: Serialize,
{
    let key = ObjectKey::of::<K>(object.meta().namespace.as_deref(), &object.name_any());
    let value = |status: &S| {
        serde_json::to_value(status).map_err(|source| Error::Serialize {
            what: key.to_string(),
            source,
        })
    };
    let status = value(new)?;
    if let Some(old) = old
        && without_times(value(old)?) == without_times(status.clone())
    {
        return Ok(false);
    }
    let resource = key.resource();
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "uid": object.meta().uid },
        "status": status,
    });
    let objects: Api<DynamicObject> = match key.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    objects
        .patch_status(key.name(), &params, &Patch::Apply(body))
        .await
        .map_err(|source| Error::WriteStatus {
            object: key.to_string(),
            source: Box::new(source),
        })?;
    Ok(true)
}

fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("lastTransitionTime");
            for field in fields.values_mut() {
                *field = without_times(field.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_times(item.take());
            }
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transition_times_are_left_out_of_the_comparison() {
        let status = |time: &str, reason: &str| json!({"conditions": [{"type": "Ready", "reason": reason, "lastTransitionTime": time}]});
        let plain = |time, reason| without_times(status(time, reason));
        assert_eq!(plain("1", "Up"), plain("2", "Up"));
        assert_ne!(plain("1", "Up"), plain("1", "Down"));
    }
}
