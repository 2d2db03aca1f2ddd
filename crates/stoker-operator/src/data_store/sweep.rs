//! Purging data whose tenant is gone and whose retention is over.

use jiff::Timestamp;
use stoker_etcd::{Pool, StorageId};

/// Purges what is due and says when the next retention ends.
///
/// # Errors
/// The pool failed; what was purged stays purged, the rest is tried again.
pub async fn sweep(
    pool: &Pool,
    now: Timestamp,
) -> Result<(Vec<StorageId>, Option<Timestamp>), stoker_etcd::Error> {
    let mut purged = Vec::new();
    let mut next: Option<Timestamp> = None;
    for (id, record) in pool.owners().await? {
        let due = record.retained_until.is_some_and(|until| until <= now);
        if due || record.purging {
            // Asked again of the pool: a tenant that came back since keeps its data. What another
            // process began to purge and did not finish is finished here.
            if pool.purge_expired(&id, now).await?.is_some() {
                purged.push(id);
            }
        } else if let Some(until) = record.retained_until {
            next = Some(next.map_or(until, |soonest| soonest.min(until)));
        }
    }
    Ok((purged, next))
}
