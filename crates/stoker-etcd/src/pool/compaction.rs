//! Forgetting old revisions of the whole pool.
//!
//! Tenants' API servers do not compact (`kube-apiserver --etcd-compaction-interval=0`): their
//! `compact_rev_key` would be one key for all of them, which none may touch. Whoever runs the pool's
//! tenants does it, with a pause long enough for watches and paged lists to go on.

use super::Pool;
use crate::error::Error;
use crate::owner::OWNER_PREFIX;

impl Pool {
    /// The pool's newest revision.
    ///
    /// # Errors
    /// When the pool fails.
    pub async fn revision(&self) -> Result<i64, Error> {
        let found = self
            .call("read the pool's revision", |mut client| async move {
                client.get(OWNER_PREFIX, None).await
            })
            .await?;
        Ok(found
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Forgets what keys were before `revision`. A revision that is already forgotten is fine.
    ///
    /// # Errors
    /// When the pool fails.
    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.call("compact the pool", |mut client| async move {
            match client.compact(revision, None).await {
                // etcd's own words (api/v3rpc/rpctypes/error.go, ErrGRPCCompacted).
                Err(etcd_client::Error::GRpcStatus(status))
                    if status.message().contains("has been compacted") =>
                {
                    Ok(())
                }
                other => other.map(drop),
            }
        })
        .await
    }
}
