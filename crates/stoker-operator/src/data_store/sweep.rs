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
        match record.retained_until {
            Some(until) if until <= now => {
                pool.purge(&id, &record.owner).await?;
                purged.push(id);
            }
            Some(until) => next = Some(next.map_or(until, |soonest| soonest.min(until))),
            None => {}
        }
    }
    Ok((purged, next))
}
