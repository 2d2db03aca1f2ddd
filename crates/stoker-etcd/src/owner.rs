//! The record of who owns a storage id, kept in the pool itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stoker_api::StorageId;

/// Where owner records live. It does not start with `/`, as every tenant's prefix does.
pub const OWNER_PREFIX: &str = "stoker.dev/owners/";

/// The first key after all owner records: `0` follows `/` in ASCII.
pub const OWNER_RANGE_END: &str = "stoker.dev/owners0";

/// The tenant control plane a storage id belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The namespace of the `TenantControlPlane`.
    pub namespace: String,
    /// The name of the `TenantControlPlane`.
    pub name: String,
    /// Its `metadata.uid`. It differs after a restore of the management cluster from backup, so it
    /// alone does not make another owner.
    pub uid: String,
    /// An identity of the management cluster, where several share one pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_cluster: Option<String>,
}

impl Owner {
    /// Whether both are the same tenant of the same management cluster: by uid, or by namespace and
    /// name after a restore gave the object another uid.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same_name = self.namespace == other.namespace && self.name == other.name;
        self.management_cluster == other.management_cluster && (same_name || self.uid == other.uid)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)?;
        match &self.management_cluster {
            Some(cluster) => write!(formatter, " of management cluster {cluster}"),
            None => Ok(()),
        }
    }
}

/// What the pool knows about a storage id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRecord {
    /// Who claimed the id.
    pub owner: Owner,
    /// When it was first claimed.
    pub claimed_at: Timestamp,
    /// Set once the tenant is deleted and only its data remains: purge it after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_until: Option<Timestamp>,
    /// Set once the deletion of its data has begun, after which nobody can have the id again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purging: bool,
}

/// The key of the owner record of `id`.
#[must_use]
pub fn owner_key(id: &StorageId) -> String {
    format!("{OWNER_PREFIX}{id}")
}

/// The id whose owner record is at `key`, if it is one.
#[must_use]
pub fn id_of_owner_key(key: &[u8]) -> Option<StorageId> {
    let id = std::str::from_utf8(key).ok()?.strip_prefix(OWNER_PREFIX)?;
    StorageId::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(namespace: &str, name: &str, uid: &str, cluster: Option<&str>) -> Owner {
        Owner {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            management_cluster: cluster.map(Into::into),
        }
    }

    #[test]
    fn an_owner_is_the_same_by_uid_or_by_name_within_one_management_cluster() {
        let one = owner("a", "b", "1", Some("x"));
        assert!(one.is_same(&owner("a", "b", "1", Some("x"))));
        assert!(
            one.is_same(&owner("a", "b", "2", Some("x"))),
            "restored from backup"
        );
        assert!(one.is_same(&owner("c", "d", "1", Some("x"))), "same object");
        assert!(!one.is_same(&owner("a", "c", "2", Some("x"))));
        assert!(!one.is_same(&owner("b", "b", "2", Some("x"))));
        assert!(!one.is_same(&owner("a", "b", "1", Some("y"))));
        assert!(!one.is_same(&owner("a", "b", "1", None)));
    }

    #[test]
    fn the_record_keeps_its_json_names() {
        let record = OwnerRecord {
            owner: owner("a", "b", "1", Some("x")),
            claimed_at: "2026-11-21T05:00:00Z".parse().unwrap(),
            retained_until: Some("2026-11-28T05:00:00Z".parse().unwrap()),
            purging: false,
        };
        let text = concat!(
            r#"{"owner":{"namespace":"a","name":"b","uid":"1","managementCluster":"x"},"#,
            r#""claimedAt":"2026-11-21T05:00:00Z","retainedUntil":"2026-11-28T05:00:00Z"}"#
        );
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<OwnerRecord>(text).unwrap(), record);
        let purging = format!(r#"{},"purging":true}}"#, text.strip_suffix('}').unwrap());
        let record = OwnerRecord {
            purging: true,
            ..record
        };
        assert_eq!(
            serde_json::from_str::<OwnerRecord>(&purging).unwrap(),
            record
        );
        assert_eq!(serde_json::to_string(&record).unwrap(), purging);
    }

    #[test]
    fn the_key_leads_back_to_the_id() {
        let id = StorageId::random().unwrap();
        assert_eq!(id_of_owner_key(owner_key(&id).as_bytes()), Some(id));
        assert_eq!(id_of_owner_key(b"stoker.dev/owners/root"), None);
        assert_eq!(id_of_owner_key(b"/stoker.dev/owners/"), None);
    }
}
