//! What the owner records in a pool say: whose data is there, and which of it nobody has any more.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use stoker_etcd::{Owner, OwnerRecord, Pool, StorageId};

/// A claim this young may be of a tenant that our cache does not show yet.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);
/// Ids named in a message.
const NAMED: usize = 5;

/// Owner records that are of no living tenant.
#[derive(Debug, Default)]
pub struct Stock {
    /// Data to be purged: its retention is over, or its purge was begun.
    due: Vec<StorageId>,
    /// When the retention of each other deleted tenant ends.
    retained: Vec<(Timestamp, StorageId)>,
    /// Claims without a tenant.
    strangers: Vec<Stranger>,
}

#[derive(Debug)]
struct Stranger {
    id: StorageId,
    owner: Owner,
    claimed_at: Timestamp,
}

/// Reads the records, purges what is due, and says what is left. `living` are the storage ids of all tenants.
///
/// # Errors
/// The pool failed; what was purged stays purged, the rest is tried again.
pub async fn take(
    pool: &Pool,
    living: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Stock, stoker_etcd::Error> {
    let mut stock = Stock::of(pool.owners().await?, living, now);
    for id in std::mem::take(&mut stock.due) {
        // Asked again of the pool: a tenant that came back since keeps its data. What another
        // process began to purge and did not finish is finished here.
        if pool.purge_expired(&id, now).await?.is_some() {
            tracing::info!(storage_id = %id, "retention over, data purged");
        }
    }
    Ok(stock)
}

impl Stock {
    fn of(
        records: Vec<(StorageId, OwnerRecord)>,
        living: &BTreeSet<String>,
        now: Timestamp,
    ) -> Self {
        let mut stock = Self::default();
        for (id, record) in records {
            let due = record.retained_until.is_some_and(|until| until <= now);
            if due || record.purging {
                stock.due.push(id);
            } else if let Some(until) = record.retained_until {
                stock.retained.push((until, id));
            } else if !living.contains(id.as_str()) {
                let (owner, claimed_at) = (record.owner, record.claimed_at);
                stock.strangers.push(Stranger {
                    id,
                    owner,
                    claimed_at,
                });
            }
        }
        stock
    }

    /// When the next retention ends.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.retained.iter().map(|(until, _)| *until).min()
    }

    /// What would be forgotten with the `DataStore`; `None` when nothing would.
    #[must_use]
    pub fn left(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some((last, _)) = self.retained.iter().max() {
            let count = self.retained.len();
            parts.push(format!(
                "the retained data of {count} deleted tenant(s), the last until {last}"
            ));
        }
        if !self.strangers.is_empty() {
            let all: Vec<_> = self.strangers.iter().collect();
            parts.push(format!(
                "{} storage id(s) without a TenantControlPlane: {}",
                all.len(),
                named(&all)
            ));
        }
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// Whether whatever would be forgotten is in the pool of these records too: then it is the same pool, since ids are
    /// random. A cluster id would not prove it: etcd makes the same one for clusters that are set up alike.
    #[must_use]
    pub fn is_among(&self, records: &[(StorageId, OwnerRecord)]) -> bool {
        let there: BTreeSet<_> = records.iter().map(|(id, _)| id.as_str()).collect();
        let retained = self.retained.iter().map(|(_, id)| id);
        let strangers = self.strangers.iter().map(|stranger| &stranger.id);
        let mut left = retained.chain(strangers);
        left.all(|id| there.contains(id.as_str()))
    }

    /// Claims that no tenant stands behind, as a message; `None` when there are none. Nothing is done to them.
    #[must_use]
    pub fn orphans(&self, now: Timestamp) -> Option<String> {
        let old = |stranger: &&Stranger| now.duration_since(stranger.claimed_at) > YOUNG;
        let orphans: Vec<_> = self.strangers.iter().filter(old).collect();
        (!orphans.is_empty()).then(|| {
            format!(
                "{} storage id(s) in the pool without a TenantControlPlane: {}; nothing of them is deleted: restore the object and its Secrets from backup, or delete the data by hand as docs/troubleshooting.md says",
                orphans.len(),
                named(&orphans)
            )
        })
    }
}

fn named(strangers: &[&Stranger]) -> String {
    let mut text = String::new();
    for (index, stranger) in strangers.iter().take(NAMED).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        // Writing into a String does not fail.
        let _ = write!(
            text,
            "{comma}{} ({}, claimed {})",
            stranger.id, stranger.owner, stranger.claimed_at
        );
    }
    if strangers.len() > NAMED {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn record(retained_until: Option<i64>, purging: bool) -> (StorageId, OwnerRecord) {
        let owner = Owner {
            namespace: "a".to_owned(),
            name: "one".to_owned(),
            uid: "1".to_owned(),
            management_cluster: None,
        };
        let record = OwnerRecord {
            owner,
            claimed_at: minute(0),
            retained_until: retained_until.map(minute),
            purging,
        };
        (StorageId::random().unwrap(), record)
    }

    #[test]
    fn records_are_told_apart() {
        let living = record(None, false);
        let ids = [living.0.to_string()].into();
        let records = vec![
            living,
            record(Some(30), false),
            record(Some(50), false),
            record(Some(5), false),
            record(None, true),
            record(None, false),
        ];
        let stranger = records[5].0.to_string();
        let stock = Stock::of(records, &ids, minute(20));
        assert_eq!(stock.due.len(), 2);
        assert_eq!(stock.next(), Some(minute(30)));
        let left = stock.left().unwrap();
        assert!(
            left.contains("2 deleted") && left.contains(&minute(50).to_string()),
            "{left}"
        );
        assert!(left.contains(&stranger), "{left}");
        assert!(stock.orphans(minute(20)).unwrap().contains(&stranger));
    }

    #[test]
    fn a_young_claim_is_not_called_orphaned_but_not_forgotten_either() {
        let stock = Stock::of(vec![record(None, false)], &BTreeSet::new(), minute(1));
        assert_eq!(stock.orphans(minute(1)), None);
        assert!(stock.left().is_some());
    }

    #[test]
    fn living_tenants_and_data_that_is_due_are_not_left_behind() {
        let living = record(None, false);
        let ids = [living.0.to_string()].into();
        let stock = Stock::of(vec![living, record(Some(1), false)], &ids, minute(60));
        assert_eq!((stock.left(), stock.orphans(minute(60))), (None, None));
        assert_eq!(stock.next(), None);
    }

    #[test]
    fn the_same_pool_is_known_by_every_id_that_would_be_forgotten() {
        let all = vec![
            record(Some(30), false),
            record(None, false),
            record(Some(40), false),
        ];
        let stock = Stock::of(all.clone(), &BTreeSet::new(), minute(20));
        assert!(stock.is_among(&all));
        assert!(!stock.is_among(&all[1..]) && !stock.is_among(&all[..1]));
    }

    #[test]
    fn few_of_many_are_named() {
        let records = (0..9).map(|_| record(None, false)).collect();
        let left = Stock::of(records, &BTreeSet::new(), minute(1))
            .left()
            .unwrap();
        assert_eq!(left.matches("claimed").count(), NAMED);
        assert!(
            left.starts_with("9 storage id(s)") && left.ends_with('…'),
            "{left}"
        );
    }
}
