//! Reading and writing owner records.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse,
};
use jiff::Timestamp;
use stoker_api::StorageId;

use super::Pool;
use super::escrow::escrow_key;
use super::manifest::manifest_key;
use crate::error::Error;
use crate::owner::{OWNER_PREFIX, OWNER_RANGE_END, Owner, OwnerRecord, id_of_owner_key, owner_key};

/// Records read in one request.
const PAGE: i64 = 1000;

/// A record as it was read, so that it is only replaced while nobody else has.
#[derive(Debug, Clone)]
pub(super) struct StoredRecord {
    pub(super) record: OwnerRecord,
    modified: i64,
}

impl StoredRecord {
    fn parse(id: &StorageId, found: &KeyValue) -> Result<Self, Error> {
        let record =
            serde_json::from_slice(found.value()).map_err(|source| Error::DamagedOwnerRecord {
                id: id.clone(),
                source,
            })?;
        Ok(Self {
            record,
            modified: found.mod_revision(),
        })
    }
}

impl Pool {
    /// Every owner record, of living tenants and of retained data, in the order of their ids.
    ///
    /// A damaged record is left out and logged, so that it does not hold up the others.
    ///
    /// # Errors
    /// Fails when the pool does not answer or our certificate has no root rights.
    pub async fn owners(&self) -> Result<Vec<(StorageId, OwnerRecord)>, Error> {
        let mut owners = Vec::new();
        let mut from = OWNER_PREFIX.as_bytes().to_vec();
        loop {
            let options = GetOptions::new()
                .with_range(OWNER_RANGE_END)
                .with_limit(PAGE);
            let page = self
                .call("list the owner records", |mut client| {
                    let (from, options) = (from.clone(), options.clone());
                    async move { client.get(from, Some(options)).await }
                })
                .await?;
            for found in page.kvs() {
                let Some(id) = id_of_owner_key(found.key()) else {
                    continue;
                };
                match StoredRecord::parse(&id, found) {
                    Ok(stored) => owners.push((id, stored.record)),
                    Err(error) => tracing::warn!(%id, %error, "owner record left out"),
                }
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                return Ok(owners);
            };
            from = [last.key(), b"\0"].concat();
        }
    }

    /// The record of `id`, if there is one.
    pub(super) async fn record(&self, id: &StorageId) -> Result<Option<StoredRecord>, Error> {
        let found = self
            .call("read the owner record", |mut client| async move {
                client.get(owner_key(id), None).await
            })
            .await?;
        found
            .kvs()
            .first()
            .map(|found| StoredRecord::parse(id, found))
            .transpose()
    }

    /// Creates the record of `id` unless there is one; that one is returned.
    pub(super) async fn create_record(
        &self,
        id: &StorageId,
        owner: &Owner,
    ) -> Result<Option<StoredRecord>, Error> {
        let record = OwnerRecord {
            owner: owner.clone(),
            claimed_at: now(),
            retained_until: None,
            purging: false,
        };
        let key = owner_key(id);
        let transaction = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), encode(id, &record)?, None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let answer = self
            .call("record the owner", |mut client| {
                let transaction = transaction.clone();
                async move { client.txn(transaction).await }
            })
            .await?;
        if answer.succeeded() {
            return Ok(None);
        }
        let Some(TxnOpResponse::Get(found)) = answer.op_responses().into_iter().next() else {
            return Err(Error::Contended { id: id.clone() });
        };
        found
            .kvs()
            .first()
            .map(|found| StoredRecord::parse(id, found))
            .transpose()
    }

    /// Replaces a record that is still as it was read.
    pub(super) async fn replace_record(
        &self,
        id: &StorageId,
        seen: &StoredRecord,
        record: OwnerRecord,
    ) -> Result<StoredRecord, Error> {
        let put = TxnOp::put(owner_key(id), encode(id, &record)?, None);
        let modified = self.change_record(id, seen, vec![put]).await?;
        Ok(StoredRecord { record, modified })
    }

    /// Deletes a record that is still as it was read, and with it the copies of the tenant's keys and manifest.
    pub(super) async fn delete_record(
        &self,
        id: &StorageId,
        seen: &StoredRecord,
    ) -> Result<(), Error> {
        let delete = |key| TxnOp::delete(key, None::<DeleteOptions>);
        let all = vec![
            delete(owner_key(id)),
            delete(escrow_key(id)),
            delete(manifest_key(id)),
        ];
        self.change_record(id, seen, all).await.map(drop)
    }

    /// Returns the revision of the change.
    async fn change_record(
        &self,
        id: &StorageId,
        seen: &StoredRecord,
        changes: Vec<TxnOp>,
    ) -> Result<i64, Error> {
        let unchanged = Compare::mod_revision(owner_key(id), CompareOp::Equal, seen.modified);
        self.change("change the owner record", id, unchanged, changes)
            .await
    }
}

fn encode(id: &StorageId, record: &OwnerRecord) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|source| Error::DamagedOwnerRecord {
        id: id.clone(),
        source,
    })
}

/// Whole seconds: a record is read by people too.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
