//! How the values of a tenant begin, by which one tells what they are encrypted with.

use etcd_client::GetOptions;
use stoker_api::StorageId;

use super::Pool;
use crate::error::Error;

/// Values in one answer. etcd takes none above 1.5 MB.
const PAGE: i64 = 32;
/// More than a page of the largest.
const LARGEST_PAGE: usize = 64 * 1024 * 1024;
/// More than any prefix of `k8s.io/apiserver` with the name of its key.
const HEAD: usize = 128;

impl Pool {
    /// Shows `see` every key of a tenant, without the tenant's prefix, and how its value begins. Pages are of the time
    /// they are read at.
    ///
    /// # Errors
    /// When the pool fails; what was seen until then was there.
    pub async fn see_values(
        &self,
        id: &StorageId,
        mut see: impl FnMut(&str, &[u8]) + Send,
    ) -> Result<(), Error> {
        let (prefix, end) = (id.prefix(), id.range_end());
        let mut start = prefix.clone().into_bytes();
        loop {
            let options = GetOptions::new().with_range(end.as_str()).with_limit(PAGE);
            let page = self
                .call("read the values of a tenant", |client| {
                    let (start, options) = (start.clone(), options.clone());
                    async move {
                        let reader = client.kv_client();
                        let mut reader = reader.max_decoding_message_size(LARGEST_PAGE);
                        reader.get(start, Some(options)).await
                    }
                })
                .await?;
            for found in page.kvs() {
                let key = String::from_utf8_lossy(found.key());
                let value = found.value();
                see(
                    key.strip_prefix(prefix.as_str()).unwrap_or(&key),
                    &value[..value.len().min(HEAD)],
                );
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                return Ok(());
            };
            start = [last.key(), b"\0"].concat();
        }
    }
}
