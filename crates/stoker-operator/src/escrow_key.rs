//! The provider's escrow key: a Secret beside the operator, made once and to be backed up.

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use stoker_api::labels::{KEY_FINALIZER, MANAGED_BY, MANAGED_BY_VALUE};
use stoker_pki::EscrowKey;

use crate::FIELD_MANAGER;

/// Name of the Secret in the operator's namespace.
pub const SECRET: &str = "stoker-escrow-key";
/// Its entry.
const ENTRY: &str = "key";

/// Reads the key, or makes it where there is none.
///
/// # Errors
/// The management API refused, or the Secret holds something else.
pub async fn read_or_make(client: &Client, namespace: &str) -> anyhow::Result<EscrowKey> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(key) = stored(&secrets).await? {
        return Ok(key);
    }
    let key = EscrowKey::generate()?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            finalizers: Some(vec![KEY_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        data: Some([(ENTRY.to_owned(), ByteString(key.as_text().into()))].into()),
        ..Secret::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match secrets.create(&params, &secret).await {
        Ok(_) => {
            tracing::info!(
                key = key.id(),
                "escrow key made: back up Secret {namespace}/{SECRET}, which opens the copies of all tenants' keys"
            );
            Ok(key)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            key_in(&secrets.get(SECRET).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the key.
///
/// # Errors
/// There is none, the management API refused, or the Secret holds something else.
pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<EscrowKey> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    stored(&secrets).await?.with_context(|| {
        format!("there is no Secret {namespace}/{SECRET}: put it back from your backup")
    })
}

async fn stored(secrets: &Api<Secret>) -> anyhow::Result<Option<EscrowKey>> {
    let secret = secrets.get_opt(SECRET).await?;
    secret.as_ref().map(key_in).transpose()
}

fn key_in(secret: &Secret) -> anyhow::Result<EscrowKey> {
    let data = secret.data.as_ref().and_then(|data| data.get(ENTRY));
    let text = data.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let text = text.ok_or_else(|| anyhow::anyhow!("Secret {SECRET} lacks {ENTRY}"))?;
    EscrowKey::from_text(&text)
        .map_err(|error| anyhow::anyhow!("entry {ENTRY} of Secret {SECRET} {error}"))
}
