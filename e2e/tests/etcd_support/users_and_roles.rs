//! Users and roles of the pool: reading them, gaining rights, and taking those of others.

use etcd_client::{Permission, RoleRevokePermissionOptions, UserAddOptions};

use super::case::Expect::{Allowed, Denied};
use super::case::{Case, case};

/// What would break the cluster if it worked comes last.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = reading_users_and_roles();
    cases.extend(gaining_rights());
    cases.extend(taking_rights());
    cases
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
