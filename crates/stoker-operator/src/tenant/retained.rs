//! Keys of a deleted tenant whose data is kept: without them the data could not be read again.
//! They wait in the operator's namespace, in a Secret named by the storage id, and go with the data.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DeleteParams;
use kube::{Api, Resource, ResourceExt};
use stoker_api::StorageId;
use stoker_api::labels::{COMPONENT, MANAGED_BY, MANAGED_BY_VALUE};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::Names;
use stoker_kube::Desired;

use super::error::Error;
use crate::context::Context;

fn name(id: &StorageId) -> String {
    format!("retained-{id}")
}

/// Copies the keys of `object` beside the operator, before the data loses its owner.
///
/// # Errors
/// The management API refused.
pub async fn keep_keys(
    object: &TenantControlPlane,
    id: &StorageId,
    until: Timestamp,
    ctx: &Context,
) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut data = BTreeMap::new();
    let mut found = 0;
    let tenant = object.name_any();
    let names = Names::of_named(&tenant);
    let wanted = names.irreplaceable();
    for secret_name in wanted {
        let suffix = &secret_name[tenant.len() + 1..];
        let secret = secrets.get_opt(secret_name).await;
        let secret = secret.map_err(|error| Error::ReadSecrets(Box::new(error)))?;
        found += usize::from(secret.is_some());
        for (key, value) in secret.and_then(|secret| secret.data).unwrap_or_default() {
            data.insert(format!("{suffix}.{key}"), ByteString(value.0));
        }
    }
    if found < wanted.len() {
        // A namespace that is deleted takes Secrets first. What an earlier pass copied stays as it is.
        let kept: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.args.pod_namespace);
        let kept = kept.get_opt(&name(id)).await;
        if kept
            .map_err(|error| Error::ReadSecrets(Box::new(error)))?
            .is_some()
        {
            return Ok(());
        }
        let note = format!(
            "only {found} of the {} Secrets with keys of storage id {id} were still there: its data is kept, but what they encrypted may be unreadable",
            wanted.len()
        );
        ctx.events
            .publish(
                &object.object_ref(&()),
                true,
                "KeysNotRetained",
                "Delete",
                &note,
            )
            .await;
    }
    if data.is_empty() {
        return Ok(());
    }
    let copy = Secret {
        metadata: ObjectMeta {
            name: Some(name(id)),
            namespace: Some(ctx.args.pod_namespace.clone()),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned()),
                (COMPONENT.to_owned(), "retained-keys".to_owned()),
            ])),
            annotations: Some(BTreeMap::from([
                (
                    "stoker.dev/tenant".to_owned(),
                    format!("{namespace}/{}", object.name_any()),
                ),
                ("stoker.dev/retained-until".to_owned(), until.to_string()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    };
    ctx.writer.apply(&Desired::of(&copy)?).await?;
    Ok(())
}

/// Removes the keys of purged data.
///
/// # Errors
/// The management API refused.
pub async fn forget_keys(id: &StorageId, ctx: &Context) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.args.pod_namespace);
    match secrets.delete(&name(id), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::Delete(Box::new(error))),
    }
}
