//! The sealed copy of a tenant's keys in the pool: kept before the tenant first uses them, and the same bytes given
//! back when their Secrets are lost.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use stoker_api::StorageId;
use stoker_control_plane::SecretData;
use stoker_etcd::{Escrow, Pool};
use stoker_pki::{EscrowError, EscrowKey};
use zeroize::Zeroizing;

use super::error::Error;

/// What a copy holds: entries by the Secret's name without the tenant's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copy(BTreeMap<String, BTreeMap<String, ByteString>>);

impl Copy {
    /// Of `tenant`'s Secrets of keys, by their names.
    pub(super) fn of<'a>(
        tenant: &str,
        secrets: impl IntoIterator<Item = (&'a str, SecretData)>,
    ) -> Self {
        let entries = |data: SecretData| {
            let data = data.into_iter();
            data.map(|(key, value)| (key, ByteString(value))).collect()
        };
        let secrets = secrets.into_iter();
        Self(
            secrets
                .filter_map(|(name, data)| Some((role(tenant, name)?.to_owned(), entries(data))))
                .collect(),
        )
    }

    /// The entries of `tenant`'s Secret `name`.
    pub(super) fn secret(&self, tenant: &str, name: &str) -> Option<SecretData> {
        let entries = self.0.get(role(tenant, name)?)?.iter();
        Some(
            entries
                .map(|(key, value)| (key.clone(), value.0.clone()))
                .collect(),
        )
    }

    /// How many Secrets it is of.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn role<'a>(tenant: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(tenant)?.strip_prefix('-')
}

/// What is copied under an id: it is authenticated with the copy.
fn what(id: &StorageId) -> String {
    format!("keys of storage id {id}")
}

/// The copy of `id` in the pool.
///
/// # Errors
/// The pool fails, or the copy cannot be opened.
pub(super) async fn read(
    id: &StorageId,
    pool: &Pool,
    key: &EscrowKey,
) -> Result<Option<Copy>, Error> {
    match pool.escrow(id).await? {
        Some(escrow) => open(id, &escrow, key).map(Some),
        None => Ok(None),
    }
}

fn open(id: &StorageId, escrow: &Escrow, key: &EscrowKey) -> Result<Copy, Error> {
    let text = key.open(&what(id), &escrow.sealed)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The same with what must still be there when it is replaced.
///
/// # Errors
/// The pool fails, or the copy cannot be opened.
pub(super) async fn read_stored(
    id: &StorageId,
    pool: &Pool,
    key: &EscrowKey,
) -> Result<Option<(Copy, Escrow)>, Error> {
    match pool.escrow(id).await? {
        Some(escrow) => Ok(Some((open(id, &escrow, key)?, escrow))),
        None => Ok(None),
    }
}

/// Keeps `copy` in the place of `read`.
///
/// # Errors
/// The pool fails, or somebody else has kept another copy since.
pub(super) async fn replace(
    id: &StorageId,
    copy: &Copy,
    read: &Escrow,
    pool: &Pool,
    key: &EscrowKey,
) -> Result<(), Error> {
    let text = Zeroizing::new(serde_json::to_vec(copy)?);
    let sealed = key.seal(&what(id), &text)?;
    pool.keep_escrow(id, Some(read), &sealed).await?;
    tracing::info!(storage_id = %id, "keys changed, escrow copy renewed");
    Ok(())
}

/// Keeps `copy`, unless the pool has it already. One that was sealed with another key, or is damaged, is
/// replaced: here are the keys themselves. Of a tenant that has not `lived` there is none, as a rule: that is not asked, but found out.
///
/// # Errors
/// The pool fails, or somebody else keeps another copy at the same time.
pub(super) async fn keep(
    id: &StorageId,
    copy: &Copy,
    pool: &Pool,
    key: &EscrowKey,
    lived: bool,
) -> Result<(), Error> {
    let text = Zeroizing::new(serde_json::to_vec(copy)?);
    let sealed = key.seal(&what(id), &text)?;
    if !lived {
        match pool.keep_escrow(id, None, &sealed).await {
            Err(stoker_etcd::Error::Contended { .. }) => {}
            kept => return Ok(kept?),
        }
    }
    let stored = pool.escrow(id).await?;
    let was = stored.as_ref().map(|escrow| open(id, escrow, key));
    if matches!(&was, Some(Ok(known)) if known == copy) {
        return Ok(());
    }
    pool.keep_escrow(id, stored.as_ref(), &sealed).await?;
    match was {
        None => {}
        Some(Ok(_)) => tracing::info!(storage_id = %id, "keys changed, escrow copy renewed"),
        Some(Err(Error::Escrow(EscrowError::OtherKey(other)))) => {
            tracing::warn!(storage_id = %id, sealed_with = other, "escrow copy renewed with the key at hand");
        }
        Some(Err(error)) => {
            tracing::warn!(storage_id = %id, error = %error, "escrow copy renewed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gives_back_the_same_bytes_under_any_name_of_the_tenant() {
        let data: SecretData = [("tls.key".to_owned(), vec![0, 255, 7])].into();
        let copy = Copy::of("one", [("one-ca", data.clone()), ("other", data.clone())]);
        assert_eq!(copy.len(), 1, "only the tenant's own");
        let text = serde_json::to_vec(&copy).unwrap();
        let copy: Copy = serde_json::from_slice(&text).unwrap();
        assert_eq!(copy.secret("one", "one-ca"), Some(data.clone()));
        assert_eq!(copy.secret("two", "two-ca"), Some(data));
        assert_eq!(copy.secret("one", "one-sa-certificate"), None);
    }
}
