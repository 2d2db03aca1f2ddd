//! What belongs to the pool as a whole, or to another tenant but is no key: leases, maintenance, membership, and the
//! lock and election services on top.

use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, DowngradeOptions, Error, LeaderResponse,
    LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, MemberAddOptions,
};

use super::case::Expect::{Allowed, Denied, Known};
use super::case::{Case, case};
use super::world::World;

/// What would break the cluster if it worked comes last.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lease();
    cases.extend(lock_and_election());
    cases.extend(membership());
    cases.extend(maintenance());
    cases
}

fn lease() -> Vec<Case> {
    vec![
        case(
            "Lease",
            "list all, with the victim's among them",
            Denied,
            |mut w| async move { w.tenant.leases().await },
        ),
        case(
            "Lease",
            "keys of the victim's",
            Denied,
            |mut w| async move {
                let keys = LeaseTimeToLiveOptions::new().with_keys();
                w.tenant.lease_time_to_live(w.keyed_lease, Some(keys)).await
            },
        ),
        case(
            "Lease",
            "time to live of the victim's, without keys",
            Known,
            |mut w| async move { w.tenant.lease_time_to_live(w.keyed_lease, None).await },
        ),
        case(
            "Lease",
            "keep the victim's alive",
            Denied,
            |mut w| async move { w.tenant.lease_keep_alive(w.keyed_lease).await },
        ),
        case("Lease", "revoke the victim's", Denied, |mut w| async move {
            w.tenant.lease_revoke(w.keyed_lease).await
        }),
        case(
            "Lease",
            "grant one with the id of the victim's",
            Known,
            |mut w| async move {
                let same = LeaseGrantOptions::new().with_id(w.keyed_lease);
                w.tenant.lease_grant(600, Some(same)).await
            },
        ),
        case(
            "Lease",
            "keep the victim's without keys alive",
            Known,
            |mut w| async move { w.tenant.lease_keep_alive(w.empty_lease).await },
        ),
        case(
            "Lease",
            "revoke the victim's without keys",
            Known,
            |mut w| async move { w.tenant.lease_revoke(w.empty_lease).await },
        ),
        case(
            "Lease",
            "grant, keep alive, revoke an own one",
            Allowed,
            |mut w| async move {
                let lease = w.tenant.lease_grant(600, None).await?.id();
                w.tenant.lease_keep_alive(lease).await?;
                w.tenant.lease_revoke(lease).await
            },
        ),
        case("Lease", "keys of an own one", Allowed, |mut w| async move {
            let keys = LeaseTimeToLiveOptions::new().with_keys();
            w.tenant.lease_time_to_live(w.own_lease, Some(keys)).await
        }),
    ]
}

fn lock_and_election() -> Vec<Case> {
    vec![
        case(
            "Lock",
            "lock below the victim's prefix",
            Denied,
            |mut w| async move {
                let lease = LockOptions::new().with_lease(w.own_lease);
                w.tenant.lock(w.foreign("lock"), Some(lease)).await
            },
        ),
        case(
            "Lock",
            "unlock the victim's key",
            Denied,
            |mut w| async move { w.tenant.unlock(w.foreign("third")).await },
        ),
        case(
            "Lock",
            "lock and unlock an own one",
            Allowed,
            |mut w| async move {
                let lease = LockOptions::new().with_lease(w.own_lease);
                let lock = w.tenant.lock(w.own("lock"), Some(lease)).await?;
                w.tenant.unlock(lock.key()).await
            },
        ),
        case(
            "Election",
            "campaign below the victim's prefix",
            Denied,
            |mut w| async move {
                w.tenant
                    .campaign(w.foreign("election"), "me", w.own_lease)
                    .await
            },
        ),
        case(
            "Election",
            "read the leader below the victim's prefix",
            Denied,
            |mut w| async move { w.tenant.leader(w.foreign("election")).await },
        ),
        case(
            "Election",
            "observe the victim's prefix",
            Denied,
            |mut w| async move {
                observed(
                    w.tenant
                        .observe(w.foreign("election"))
                        .await?
                        .message()
                        .await?,
                )
            },
        ),
        case(
            "Election",
            "campaign, read and observe below the own prefix",
            Allowed,
            |mut w| async move {
                w.tenant
                    .campaign(w.own("election"), "me", w.own_lease)
                    .await?;
                w.tenant.leader(w.own("election")).await?;
                observed(w.tenant.observe(w.own("election")).await?.message().await?)
            },
        ),
    ]
}

/// etcd ends a stream that it does not permit without a word.
fn observed(leader: Option<LeaderResponse>) -> Result<LeaderResponse, Error> {
    let ended = || Error::GRpcStatus(tonic::Status::permission_denied("permission denied"));
    leader.ok_or_else(ended)
}

fn membership() -> Vec<Case> {
    vec![
        case("Cluster", "list members", Known, |mut w| async move {
            w.tenant.member_list().await
        }),
        case("Cluster", "add a member", Denied, |mut w| async move {
            let learner = MemberAddOptions::new().with_is_learner();
            w.tenant
                .member_add(["http://127.0.0.1:1"], Some(learner))
                .await
        }),
        case("Cluster", "remove a member", Denied, |mut w| async move {
            w.tenant.member_remove(1).await
        }),
        case("Cluster", "move a member", Denied, |mut w| async move {
            w.tenant
                .member_update(1, ["http://127.0.0.1:1".to_owned()])
                .await
        }),
        case("Cluster", "promote a member", Denied, |mut w| async move {
            w.tenant.member_promote(1).await
        }),
    ]
}

fn maintenance() -> Vec<Case> {
    let alarm = |name: &'static str, action, kind: AlarmType| {
        case(
            "Maintenance",
            name,
            Denied,
            move |mut w: World| async move { w.tenant.alarm(action, kind, None).await },
        )
    };
    let downgrade = |name: &'static str, options: fn() -> DowngradeOptions| {
        case("Maintenance", name, Denied, move |w: World| async move {
            w.tenant.maintenance_client().downgrade(options()).await
        })
    };
    vec![
        case("Maintenance", "status", Known, |mut w| async move {
            w.tenant.status().await
        }),
        case("Maintenance", "list alarms", Known, |mut w| async move {
            w.tenant
                .alarm(AlarmAction::Get, AlarmType::None, None)
                .await
        }),
        alarm(
            "raise the alarm of a full disk",
            AlarmAction::Activate,
            AlarmType::Nospace,
        ),
        alarm(
            "raise the alarm of a corrupt member",
            AlarmAction::Activate,
            AlarmType::Corrupt,
        ),
        alarm("lift an alarm", AlarmAction::Deactivate, AlarmType::Nospace),
        case(
            "Maintenance",
            "snapshot of everything",
            Denied,
            |mut w| async move { w.tenant.snapshot().await?.message().await },
        ),
        case("Maintenance", "hash", Denied, |mut w| async move {
            w.tenant.hash().await
        }),
        case("Maintenance", "hash of keys", Denied, |mut w| async move {
            w.tenant.hash_kv(w.revision).await
        }),
        case("Maintenance", "defragment", Denied, |mut w| async move {
            w.tenant.defragment().await
        }),
        case(
            "Maintenance",
            "move the leader",
            Denied,
            |mut w| async move { w.tenant.move_leader(w.member).await },
        ),
        downgrade("ask for a downgrade", || {
            DowngradeOptions::Validate("3.5.0".into())
        }),
        downgrade("downgrade", || DowngradeOptions::Enable("3.5.0".into())),
        downgrade("cancel a downgrade", || DowngradeOptions::Cancel),
        case(
            "Compact",
            "everything, also the history of others",
            Denied,
            |mut w| async move {
                let physical = CompactionOptions::new().with_physical();
                w.tenant.compact(w.revision, Some(physical)).await
            },
        ),
    ]
}
