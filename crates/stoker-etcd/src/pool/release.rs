//! Taking a storage id back: at once, or after its data was kept for a while.

use etcd_client::{DeleteOptions, GetOptions};
use jiff::Timestamp;
use stoker_api::StorageId;

use super::Pool;
use super::record::StoredRecord;
use crate::answer::Answer;
use crate::error::Error;
use crate::owner::{Owner, OwnerRecord};

/// Keys deleted in one request: etcd applies each without serving anyone else meanwhile.
const PAGE: i64 = 1000;

/// A tenant whose data is kept and whose credentials no longer work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// When the data may be purged; `None` when the pool knows nothing of the id.
    pub until: Option<Timestamp>,
}

/// A tenant of which the pool knows nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// How many keys this call deleted.
    pub keys: u64,
}

impl Pool {
    /// Keeps the data of a deleted tenant and takes away every way to it: user and role are
    /// deleted, so no certificate of the tenant works, and the owner record says until when.
    ///
    /// A repeated call keeps the time of the first. Watches that were open go on until their
    /// connections end: stop the tenant's pods first.
    ///
    /// # Errors
    /// [`Error::AlreadyOwned`] when `id` is not `owner`'s, [`Error::Unowned`] when it has keys but
    /// no owner record, [`Error::BeingPurged`], or the pool fails. The call may be repeated.
    pub async fn retain(
        &self,
        id: &StorageId,
        owner: &Owner,
        until: Timestamp,
    ) -> Result<Retained, Error> {
        let stored = self.record_of(id, owner).await?;
        let until = match &stored {
            None => None,
            Some(seen) if seen.record.purging => {
                return Err(Error::BeingPurged { id: id.clone() });
            }
            Some(StoredRecord {
                record:
                    OwnerRecord {
                        retained_until: Some(first),
                        ..
                    },
                ..
            }) => Some(*first),
            Some(seen) => {
                let record = OwnerRecord {
                    retained_until: Some(until),
                    ..seen.record.clone()
                };
                self.replace_record(id, seen, record).await?;
                Some(until)
            }
        };
        self.revoke_access(id).await?;
        tracing::info!(%id, %owner, ?until, "storage id retained");
        Ok(Retained { until })
    }

    /// Deletes everything the pool has of a tenant: user and role first, so that nothing can be
    /// written behind the deletion, then its keys, then, once none is left, the owner record. From
    /// the first step on nobody can claim the id.
    ///
    /// A repeated call goes on where the last one was cut off, and succeeds when nothing is left.
    ///
    /// # Errors
    /// [`Error::AlreadyOwned`] when `id` is not `owner`'s, [`Error::Unowned`] when it has keys but
    /// no owner record, or the pool fails. The call may be repeated.
    pub async fn purge(&self, id: &StorageId, owner: &Owner) -> Result<Purged, Error> {
        let Some(stored) = self.record_of(id, owner).await? else {
            self.revoke_access(id).await?;
            return Ok(Purged { keys: 0 });
        };
        self.purge_record(id, stored).await
    }

    /// Purges an id whose data was retained until a time before `now`; `None` when it is not one,
    /// so that a tenant that came back since the caller looked keeps its data.
    ///
    /// # Errors
    /// When the pool fails. The call may be repeated.
    pub async fn purge_expired(
        &self,
        id: &StorageId,
        now: Timestamp,
    ) -> Result<Option<Purged>, Error> {
        let Some(stored) = self.record(id).await? else {
            return Ok(None);
        };
        let expired = stored
            .record
            .retained_until
            .is_some_and(|until| until <= now);
        if !expired && !stored.record.purging {
            return Ok(None);
        }
        self.purge_record(id, stored).await.map(Some)
    }

    async fn purge_record(&self, id: &StorageId, stored: StoredRecord) -> Result<Purged, Error> {
        // Whoever claims the id at the same time wins or loses here, before anything is deleted.
        let stored = if stored.record.purging {
            stored
        } else {
            let record = OwnerRecord {
                purging: true,
                ..stored.record.clone()
            };
            self.replace_record(id, &stored, record).await?
        };
        self.revoke_access(id).await?;
        let keys = self.delete_keys(id).await?;
        let left = self.usage(id).await?.keys;
        if left > 0 {
            return Err(Error::NotEmptied {
                id: id.clone(),
                keys: left,
            });
        }
        self.delete_record(id, &stored).await?;
        let owner = &stored.record.owner;
        tracing::info!(%id, %owner, keys, "storage id purged");
        Ok(Purged { keys })
    }

    /// The owner's record; `None` when there is neither a record nor a key.
    async fn record_of(
        &self,
        id: &StorageId,
        owner: &Owner,
    ) -> Result<Option<StoredRecord>, Error> {
        let Some(stored) = self.record(id).await? else {
            let keys = self.usage(id).await?.keys;
            return if keys == 0 {
                Ok(None)
            } else {
                Err(Error::Unowned {
                    id: id.clone(),
                    keys,
                })
            };
        };
        if stored.record.owner.is_same(owner) {
            return Ok(Some(stored));
        }
        Err(Error::AlreadyOwned {
            id: id.clone(),
            owner: Box::new(stored.record.owner),
            retained_until: stored.record.retained_until,
        })
    }

    async fn revoke_access(&self, id: &StorageId) -> Result<(), Error> {
        self.ensure("delete a user", Answer::NotFound, |mut client| async move {
            client.user_delete(id.user()).await
        })
        .await?;
        self.ensure("delete a role", Answer::NotFound, |mut client| async move {
            client.role_delete(id.role()).await
        })
        .await?;
        Ok(())
    }

    async fn delete_keys(&self, id: &StorageId) -> Result<u64, Error> {
        let (prefix, end) = (id.prefix(), id.range_end());
        if !is_tenant_range(&prefix, &end) {
            return Err(Error::UnsafeRange { start: prefix, end });
        }
        let mut deleted = 0;
        loop {
            let options = GetOptions::new()
                .with_range(end.as_str())
                .with_keys_only()
                .with_limit(PAGE);
            let page = self
                .call("list the keys of a tenant", |mut client| {
                    let (prefix, options) = (prefix.as_str(), options.clone());
                    async move { client.get(prefix, Some(options)).await }
                })
                .await?;
            let Some(last) = page.kvs().last() else {
                return Ok(deleted);
            };
            let page_end = if page.more() {
                [last.key(), b"\0"].concat()
            } else {
                end.clone().into_bytes()
            };
            let gone = self
                .call("delete the keys of a tenant", |mut client| {
                    let options = DeleteOptions::new().with_range(page_end.clone());
                    let prefix = prefix.as_str();
                    async move { client.delete(prefix, Some(options)).await }
                })
                .await?;
            deleted += u64::try_from(gone.deleted()).unwrap_or(0);
        }
    }
}

/// Whether `prefix` … `end` is what one tenant may have, checked on the text itself, as the last
/// thing before keys are deleted.
fn is_tenant_range(prefix: &str, end: &str) -> bool {
    let Some(id) = prefix
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'))
    else {
        return false;
    };
    StorageId::try_from(id).is_ok() && end.strip_suffix('0') == prefix.strip_suffix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_tenants_range_is_ever_deleted() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(is_tenant_range(&format!("/{id}/"), &format!("/{id}0")));
        for (prefix, end) in [
            ("", ""),
            ("/", "0"),
            ("//", "/0"),
            ("\0", "\0"),
            (&*format!("/{id}"), &*format!("/{id}0")),
            (&*format!("{id}/"), &*format!("{id}0")),
            (&*format!("/{id}/"), "\0"),
            (&*format!("/{id}/"), "0"),
            (&*format!("/{id}/"), &*format!("/{id}1")),
            (&*format!("/{id}/x/"), &*format!("/{id}/x0")),
            ("stoker.dev/owners/", "stoker.dev/owners0"),
        ] {
            assert!(!is_tenant_range(prefix, end), "{prefix:?} to {end:?}");
        }
    }
}
