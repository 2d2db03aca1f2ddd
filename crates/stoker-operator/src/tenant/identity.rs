//! The tenant's identity in the pool: minted once, recorded before anything is made in its name.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use stoker_api::StorageId;
use stoker_api::labels::FINALIZER;
use stoker_api::v1alpha1::{SecretStatus, StorageSetupStatus, StorageStatus, TenantControlPlane};
use stoker_control_plane::Names;
use stoker_kube::ObjectKey;

use super::error::Error;
use super::secrets::is_ours;
use super::state::{TenantState, lock};
use crate::FIELD_MANAGER;

/// Field manager of the finalizer alone.
const FINALIZER_MANAGER: &str = "stoker-finalizer";

/// The identity, from the first record that has it: status, then `<tcp>-datastore-config`, which
/// survives a restore of objects without status. `None` for a tenant not yet born.
///
/// # Errors
/// A record holds something else.
pub async fn recorded(
    object: &TenantControlPlane,
    client: &Client,
    config_secret: &str,
) -> Result<Option<StorageId>, Error> {
    if let Some(storage) = object
        .status
        .as_ref()
        .and_then(|status| status.storage.as_ref())
    {
        return parse(&storage.setup.schema).map(Some);
    }
    let namespace = object.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = secrets
        .get_opt(config_secret)
        .await
        .map_err(|error| Error::ReadSecrets(Box::new(error)))?;
    let uid = object.uid().unwrap_or_default();
    let schema = secret
        .filter(|secret| is_ours(secret, &uid))
        .and_then(|secret| secret.data?.remove("DB_SCHEMA"));
    schema
        .map(|bytes| parse(&String::from_utf8_lossy(&bytes.0)))
        .transpose()
}

/// The identity as far as it is known without a request.
#[must_use]
pub(super) fn known(object: &TenantControlPlane, state: &TenantState) -> Option<StorageId> {
    let recorded = || {
        let storage = object.status.as_ref()?.storage.as_ref()?;
        parse(&storage.setup.schema).ok()
    };
    lock(&state.storage_id).clone().or_else(recorded)
}

fn parse(text: &str) -> Result<StorageId, Error> {
    StorageId::try_from(text).map_err(|_| Error::CorruptStorageId(text.to_owned()))
}

/// Mints an identity.
///
/// # Errors
/// The operating system gives no randomness.
pub fn mint() -> Result<StorageId, Error> {
    StorageId::random().map_err(|_| Error::MintStorageId)
}

/// What status says of the tenant's storage.
#[must_use]
pub fn storage_status(id: &StorageId, data_store: &str, tenant: &str) -> StorageStatus {
    let names = Names::of_named(tenant);
    let secret = |secret_name| SecretStatus { secret_name };
    StorageStatus {
        driver: "etcd".to_owned(),
        data_store_name: data_store.to_owned(),
        config: secret(names.datastore_config),
        certificate: secret(names.datastore_certificate),
        setup: StorageSetupStatus {
            schema: id.to_string(),
            user: id.user().to_owned(),
        },
    }
}

/// Sets the finalizer and then records the identity: the pool knows nothing of the tenant before both
/// are written, so the finalizer alone, after a crash, does no harm. Each write is guarded by the version that the
/// one before was answered with: of two operators that mint at the same time one is refused, and reads what the
/// other has recorded.
///
/// # Errors
/// The management API refused; the object is gone, being deleted, or somebody else changed it.
pub async fn record(
    object: &TenantControlPlane,
    client: &Client,
    storage: &StorageStatus,
) -> Result<(), Error> {
    let recorded = object
        .status
        .as_ref()
        .and_then(|status| status.storage.as_ref());
    if recorded == Some(storage) && has_finalizer(object) {
        return Ok(());
    }
    match record_on(object, client, storage).await {
        // The cached object lagged behind.
        Err(Error::RecordIdentity(error)) if is_conflict(&error) => {}
        recorded => return recorded,
    }
    let namespace = object.namespace().unwrap_or_default();
    let tenants: Api<TenantControlPlane> = Api::namespaced(client.clone(), &namespace);
    let refused = |error| Error::RecordIdentity(Box::new(error));
    let found = tenants.get(&object.name_any()).await.map_err(refused)?;
    if found.uid() != object.uid() || found.metadata.deletion_timestamp.is_some() {
        return Err(Error::Leaving);
    }
    record_on(&found, client, storage).await
}

/// Writes both, in the version that was `found`.
async fn record_on(
    found: &TenantControlPlane,
    client: &Client,
    storage: &StorageStatus,
) -> Result<(), Error> {
    let namespace = found.namespace().unwrap_or_default();
    let tenants: Api<TenantControlPlane> = Api::namespaced(client.clone(), &namespace);
    let refused = |error| Error::RecordIdentity(Box::new(error));
    let known = found
        .status
        .as_ref()
        .and_then(|status| status.storage.as_ref());
    if known.is_some_and(|known| known.setup != storage.setup) {
        return Err(Error::RecordedOtherwise);
    }
    let is_known = known == Some(storage);
    let version = if has_finalizer(found) {
        found.resource_version()
    } else {
        let written = write_finalizer(found, &tenants, true).await;
        written.map_err(refused)?.resource_version
    };
    if is_known {
        return Ok(());
    }
    let patch = json!({
        "metadata": { "uid": found.uid(), "resourceVersion": version },
        "status": { "storage": storage },
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let key = ObjectKey::of::<TenantControlPlane>(Some(&namespace), &found.name_any());
    stoker_kube::patch_status(client, &key, &params, &Patch::Merge(&patch))
        .await
        .map_err(refused)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// Whether our finalizer is on it.
#[must_use]
pub fn has_finalizer(object: &TenantControlPlane) -> bool {
    object.finalizers().iter().any(|name| name == FINALIZER)
}

/// Sets or removes our finalizer.
///
/// # Errors
/// The management API refused.
pub async fn set_finalizer(
    object: &TenantControlPlane,
    tenants: &Api<TenantControlPlane>,
    wanted: bool,
) -> Result<(), kube::Error> {
    if has_finalizer(object) == wanted {
        return Ok(());
    }
    // The version, read afresh, keeps an object of the same name made since from being touched.
    let found = tenants.get(&object.name_any()).await?;
    if found.uid() != object.uid() || has_finalizer(&found) == wanted {
        return Ok(());
    }
    write_finalizer(&found, tenants, wanted).await.map(drop)
}

/// A manager of its own leaves other controllers' finalizers alone.
async fn write_finalizer(
    found: &TenantControlPlane,
    tenants: &Api<TenantControlPlane>,
    wanted: bool,
) -> Result<ObjectMeta, kube::Error> {
    let finalizers: &[&str] = if wanted { &[FINALIZER] } else { &[] };
    let patch = json!({
        "apiVersion": TenantControlPlane::api_version(&()),
        "kind": TenantControlPlane::kind(&()),
        "metadata": { "resourceVersion": found.resource_version(), "finalizers": finalizers },
    });
    let params = PatchParams::apply(FINALIZER_MANAGER).force();
    let written = tenants
        .patch_metadata(&found.name_any(), &params, &Patch::Apply(&patch))
        .await;
    Ok(written?.metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    /// What is recorded for a tenant whose status and whose Secret hold these; the Secret belongs to `owner`.
    async fn found(
        status: Option<&str>,
        secret: Option<(&str, &str)>,
    ) -> Result<Option<String>, String> {
        let mut object = json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": { "name": "one", "namespace": "a", "uid": "u" },
            "spec": {
                "controlPlane": { "service": { "serviceType": "ClusterIP" } },
                "kubernetes": { "version": "v1.36.3", "kubelet": {} },
            },
        });
        if let Some(schema) = status {
            object["status"] = json!({ "storage": {
                "driver": "etcd", "dataStoreName": "pool", "setup": { "schema": schema, "user": schema },
            }});
        }
        let object: TenantControlPlane = serde_json::from_value(object).unwrap();
        let (code, answer) = match secret {
            Some((schema, owner)) => {
                let data = k8s_openapi::ByteString(schema.as_bytes().to_vec());
                let answer = json!({
                    "apiVersion": "v1", "kind": "Secret", "data": { "DB_SCHEMA": data },
                    "metadata": { "name": "one-datastore-config", "ownerReferences": [{
                        "apiVersion": "v", "kind": "k", "name": "n", "uid": owner, "controller": true,
                    }]},
                });
                (200, answer)
            }
            None => (
                404,
                json!({ "kind": "Status", "code": 404, "reason": "NotFound", "message": "" }),
            ),
        };
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            assert_eq!(
                request.uri().path(),
                "/api/v1/namespaces/a/secrets/one-datastore-config"
            );
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body);
            async move { answer }
        });
        let client = Client::new(service, "default");
        let found = recorded(&object, &client, "one-datastore-config").await;
        found
            .map(|id| id.map(|id| id.to_string()))
            .map_err(|error| error.category().to_owned())
    }

    #[tokio::test]
    async fn the_first_record_that_has_an_identity_decides_and_nothing_else_is_taken_for_one() {
        let corrupt = Err("CorruptStorageId".to_owned());
        let is = |id: &str| Ok(Some(id.to_owned()));
        for (status, secret, expected) in [
            (None, None, Ok(None)),
            (Some(ID), None, is(ID)),
            (Some(ID), Some((OTHER, "u")), is(ID)),
            (None, Some((ID, "u")), is(ID)),
            // A former tenant of the same name left it behind.
            (None, Some((ID, "former")), Ok(None)),
            (Some(""), Some((ID, "u")), corrupt.clone()),
            (Some("../etc"), None, corrupt.clone()),
            (Some(&ID.to_uppercase()), None, corrupt.clone()),
            (None, Some(("", "u")), corrupt.clone()),
            (None, Some(("0123/", "u")), corrupt.clone()),
        ] {
            assert_eq!(
                found(status, secret).await,
                expected,
                "{status:?} {secret:?}"
            );
        }
    }
}
