//! Sealed copies of tenants' manifests, kept beside their data and outside every tenant's range. They go with the data.

use etcd_client::{Compare, CompareOp, TxnOp};
use stoker_api::StorageId;

use super::Pool;
use crate::error::Error;
use crate::owner::owner_key;

/// Where the copies live. It does not start with `/`, as every tenant's prefix does.
pub const MANIFEST_PREFIX: &str = "stoker.dev/manifests/";

/// The key of the copy of `id`.
#[must_use]
pub fn manifest_key(id: &StorageId) -> String {
    format!("{MANIFEST_PREFIX}{id}")
}

impl Pool {
    /// The copy of `id`, if there is one. The pool does not know what it says.
    ///
    /// # Errors
    /// When the pool fails.
    pub async fn manifest(&self, id: &StorageId) -> Result<Option<Vec<u8>>, Error> {
        let found = self
            .call("read a manifest", |mut client| async move {
                client.get(manifest_key(id), None).await
            })
            .await?;
        Ok(found.kvs().first().map(|found| found.value().to_vec()))
    }

    /// Keeps a copy of `id` in place of any other, as long as somebody owns the id.
    ///
    /// # Errors
    /// [`Error::Contended`] when nobody owns it any more, or the pool fails.
    pub async fn keep_manifest(&self, id: &StorageId, sealed: &[u8]) -> Result<(), Error> {
        let owned = Compare::create_revision(owner_key(id), CompareOp::Greater, 0);
        let put = TxnOp::put(manifest_key(id), sealed, None);
        self.change("keep a manifest", id, owned, vec![put])
            .await
            .map(drop)
    }
}
