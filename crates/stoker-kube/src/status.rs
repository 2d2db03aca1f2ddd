//! Writing the status of an object of ours.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::call::{METADATA, objects, request};
use crate::desired::ObjectKey;
use crate::error::Error;

/// Owner of every status field. Another name than that of other fields, so that the two writers
/// never take fields from each other.
const FIELD_MANAGER: &str = "stoker-status";

/// How often a status is written against the latest version of a busy object.
const ATTEMPTS: usize = 4;

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
    let status = value(&key, new)?;
    if let Some(old) = old
        && without_times(value(&key, old)?) == without_times(status.clone())
    {
        return Ok(false);
    }
    let known = (object.uid(), object.resource_version());
    apply_status(client, &key, known, status)
        .await
        .map_err(|source| Error::WriteStatus {
            object: key.to_string(),
            source: Box::new(source),
        })?;
    Ok(true)
}

/// Writes `new` as the status of `object`, and only in the version that `object` was read in: what is counted there must
/// not be counted from an old state.
///
/// # Errors
/// [`Error::WriteStatus`], with the category `Conflict` when the object has changed; [`Error::Serialize`].
pub async fn replace_status<K, S>(
    client: &Client,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
    S: Serialize,
{
    let key = ObjectKey::of::<K>(object.meta().namespace.as_deref(), &object.name_any());
    // A field that is no longer there is taken away by a null.
    let mut status = value(&key, new)?;
    let before = old.map(|old| value(&key, old)).transpose()?;
    if let (Some(status), Some(Value::Object(before))) = (status.as_object_mut(), before) {
        for field in before.into_iter().map(|(field, _)| field) {
            status.entry(field).or_insert(Value::Null);
        }
    }
    let body = json!({
        "metadata": { "resourceVersion": object.resource_version(), "uid": object.uid() },
        "status": status,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    patch_status(client, &key, &params, &Patch::Merge(body))
        .await
        .map_err(|source| Error::WriteStatus {
            object: key.to_string(),
            source: Box::new(source),
        })
}

/// Server-side apply ignores a uid in the body, so the version is what keeps a status from landing
/// on a namesake: a status can hold an identity, and that must never pass to another object. When
/// the version is not the latest any more the object is looked at again.
async fn apply_status(
    client: &Client,
    key: &ObjectKey,
    (uid, mut version): (Option<String>, Option<String>),
    status: Value,
) -> Result<(), kube::Error> {
    let resource = key.resource();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "resourceVersion": version },
            "status": status,
        });
        match patch_status(client, key, &params, &Patch::Apply(body)).await {
            Err(kube::Error::Api(refusal)) if refusal.is_conflict() && attempt < ATTEMPTS => {
                let objects: Api<DynamicObject> = objects(client, resource, key.namespace());
                let found = objects.get_metadata(key.name()).await?.metadata;
                if found.uid != uid {
                    return Err(kube::Error::Api(refusal));
                }
                version = found.resource_version;
            }
            other => return other,
        }
    }
}

/// Patches the status of an object, of which nothing is wanted in answer.
///
/// # Errors
/// The API server refused.
pub async fn patch_status<P>(
    client: &Client,
    key: &ObjectKey,
    params: &PatchParams,
    patch: &Patch<P>,
) -> Result<(), kube::Error>
where
    P: Serialize + std::fmt::Debug,
{
    let url = DynamicObject::url_path(key.resource(), key.namespace());
    let patch = Request::new(&url)
        .patch_subresource("status", key.name(), params, patch)
        .map_err(kube::Error::BuildRequest)?;
    let IgnoredAny = request(client, patch, METADATA).await?;
    Ok(())
}

fn value<S: Serialize>(key: &ObjectKey, status: &S) -> Result<Value, Error> {
    serde_json::to_value(status).map_err(|source| Error::Serialize {
        what: key.to_string(),
        source,
    })
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
    use crate::scenario::{PATIENCE, Scenario};
    use k8s_openapi::api::core::v1::Pod;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "1",
        }}))
        .unwrap()
    }

    #[tokio::test]
    async fn a_status_follows_a_busy_object_and_never_lands_on_a_namesake() {
        const PATH: &str = "/api/v1/namespaces/ns/pods/a";
        let (client, mut server) = Scenario::new();
        let serve = async {
            let status = format!("{PATH}/status");
            for namesake in [false, true] {
                let call = server.expect("PATCH", &status).await;
                assert_eq!(call.body["metadata"]["resourceVersion"], "1");
                call.refuse(409, "Conflict", "no");
                let uid = if namesake { "w" } else { "u" };
                let found = json!({"metadata": {"name": "a", "uid": uid, "resourceVersion": "7"}});
                server.expect("GET", PATH).await.answer(200, &found);
                if !namesake {
                    let call = server.expect("PATCH", &status).await;
                    assert_eq!(call.body["metadata"]["resourceVersion"], "7");
                    assert_eq!(call.body["status"]["phase"], "Running");
                    call.store("u", 8);
                }
            }
        };
        let write = async {
            let new = json!({"phase": "Running"});
            assert!(write_status(&client, &pod(), None, &new).await.unwrap());
            let refused = write_status(&client, &pod(), None, &new).await.unwrap_err();
            assert_eq!(refused.category(), "Conflict");
            // Nothing is sent for what is there already.
            assert!(
                !write_status(&client, &pod(), Some(&new), &new)
                    .await
                    .unwrap()
            );
        };
        let both = async { tokio::join!(serve, write) };
        tokio::time::timeout(PATIENCE, both).await.unwrap();
    }

    #[test]
    fn only_transition_times_are_left_out_of_the_comparison() {
        let status = |time: &str, reason: &str| json!({"conditions": [{"type": "Ready", "reason": reason, "lastTransitionTime": time}]});
        let plain = |time, reason| without_times(status(time, reason));
        assert_eq!(plain("1", "Up"), plain("2", "Up"));
        assert_ne!(plain("1", "Up"), plain("1", "Down"));
    }
}
