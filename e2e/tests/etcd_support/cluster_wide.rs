//! What belongs to the pool as a whole, or to another tenant but is no key: leases, maintenance,
//! membership, users and roles, and the lock and election services on top.

use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, DowngradeOptions, Error, LeaderResponse,
    LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, MemberAddOptions, Permission,
    RoleRevokePermissionOptions, UserAddOptions,
};

use super::case::Expect::{Allowed, Denied, Known};
use super::case::{Case, case};
use super::world::World;

/// What would break the cluster if it worked comes last.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lease();
    cases.extend(lock_and_election());
    cases.extend(reading_users_and_roles());
    cases.extend(membership());
    cases.extend(maintenance());
    cases.extend(gaining_rights());
    cases.extend(taking_rights());
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

fn reading_users_and_roles() -> Vec<Case> {
    vec![
        case("Auth", "own user", Allowed, |mut w| async move {
            w.tenant.user_get(w.tenant_id.user()).await
        }),
        case("Auth", "own role", Allowed, |mut w| async move {
            w.tenant.role_get(w.tenant_id.role()).await
        }),
        case("Auth", "the victim's user", Denied, |mut w| async move {
            w.tenant.user_get(w.victim_id.user()).await
        }),
        case("Auth", "the victim's role", Denied, |mut w| async move {
            w.tenant.role_get(w.victim_id.role()).await
        }),
        case("Auth", "user root", Denied, |mut w| async move {
            w.tenant.user_get("root").await
        }),
        case("Auth", "role root", Denied, |mut w| async move {
            w.tenant.role_get("root").await
        }),
        case("Auth", "list users", Denied, |mut w| async move {
            w.tenant.user_list().await
        }),
        case("Auth", "list roles", Denied, |mut w| async move {
            w.tenant.role_list().await
        }),
    ]
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

fn gaining_rights() -> Vec<Case> {
    vec![
        case("Auth", "add a user", Denied, |mut w| async move {
            let no_password = UserAddOptions::new().with_no_pwd();
            w.tenant.user_add("new", "", Some(no_password)).await
        }),
        case("Auth", "add a role", Denied, |mut w| async move {
            w.tenant.role_add("new").await
        }),
        case(
            "Auth",
            "give oneself role root",
            Denied,
            |mut w| async move { w.tenant.user_grant_role(w.tenant_id.user(), "root").await },
        ),
        case(
            "Auth",
            "give oneself the victim's role",
            Denied,
            |mut w| async move {
                w.tenant
                    .user_grant_role(w.tenant_id.user(), w.victim_id.role())
                    .await
            },
        ),
        case(
            "Auth",
            "give one's role every key",
            Denied,
            |mut w| async move {
                let everything = Permission::read_write("\0").with_from_key();
                w.tenant
                    .role_grant_permission(w.tenant_id.role(), everything)
                    .await
            },
        ),
        case(
            "Auth",
            "set one's own password",
            Denied,
            |mut w| async move {
                w.tenant
                    .user_change_password(w.tenant_id.user(), "password")
                    .await
            },
        ),
        case(
            "Auth",
            "set the victim's password",
            Denied,
            |mut w| async move {
                w.tenant
                    .user_change_password(w.victim_id.user(), "password")
                    .await
            },
        ),
    ]
}

fn taking_rights() -> Vec<Case> {
    vec![
        case(
            "Auth",
            "take the victim's role from it",
            Denied,
            |mut w| async move {
                w.tenant
                    .user_revoke_role(w.victim_id.user(), w.victim_id.role())
                    .await
            },
        ),
        case(
            "Auth",
            "take the victim's permission",
            Denied,
            |mut w| async move {
                let range = RoleRevokePermissionOptions::new().with_prefix();
                let role = w.victim_id.role();
                w.tenant
                    .role_revoke_permission(role, w.foreign(""), Some(range))
                    .await
            },
        ),
        case(
            "Auth",
            "delete the victim's role",
            Denied,
            |mut w| async move { w.tenant.role_delete(w.victim_id.role()).await },
        ),
        case(
            "Auth",
            "delete the victim's user",
            Denied,
            |mut w| async move { w.tenant.user_delete(w.victim_id.user()).await },
        ),
        case(
            "Auth",
            "turn authentication on",
            Denied,
            |mut w| async move { w.tenant.auth_enable().await },
        ),
        case(
            "Auth",
            "turn authentication off",
            Denied,
            |mut w| async move { w.tenant.auth_disable().await },
        ),
    ]
}
