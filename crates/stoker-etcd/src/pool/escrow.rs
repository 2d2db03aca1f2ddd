//! Sealed copies of tenants' keys, kept beside their data and outside every tenant's range. They go with the data.

use etcd_client::{Compare, CompareOp, TxnOp};
use stoker_api::StorageId;

use super::Pool;
use crate::error::Error;

/// Where the copies live. It does not start with `/`, as every tenant's prefix does.
pub const ESCROW_PREFIX: &str = "stoker.dev/escrow/";

/// The key of the copy of `id`.
#[must_use]
pub fn escrow_key(id: &StorageId) -> String {
    format!("{ESCROW_PREFIX}{id}")
}

/// A copy as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escrow {
    /// What was kept. The pool does not know what it says.
    pub sealed: Vec<u8>,
    modified: i64,
}

impl Pool {
    /// The copy of `id`, if there is one.
    ///
    /// # Errors
    /// When the pool fails.
    pub async fn escrow(&self, id: &StorageId) -> Result<Option<Escrow>, Error> {
        let found = self
            .call("read an escrow copy", |mut client| async move {
                client.get(escrow_key(id), None).await
            })
            .await?;
        Ok(found.kvs().first().map(|found| Escrow {
            sealed: found.value().to_vec(),
            modified: found.mod_revision(),
        }))
    }

    /// Keeps a copy of `id` in place of the one that was read, `None` when there was none.
    ///
    /// # Errors
    /// [`Error::Contended`] when there is another one by now, or the pool fails.
    pub async fn keep_escrow(
        &self,
        id: &StorageId,
        read: Option<&Escrow>,
        sealed: &[u8],
    ) -> Result<(), Error> {
        let key = escrow_key(id);
        let unchanged = match read {
            None => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
            Some(read) => Compare::mod_revision(key.as_str(), CompareOp::Equal, read.modified),
        };
        let put = TxnOp::put(key.as_str(), sealed, None);
        self.change("keep an escrow copy", id, unchanged, vec![put])
            .await
            .map(drop)
    }
}
