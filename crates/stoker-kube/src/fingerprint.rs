//! What tells two states of an object apart without looking at its content.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Which incarnation of an object this is, and which state of it.
///
/// Kinds with a `generation` (Deployment, `DaemonSet`, custom resources) keep it when only their
/// status changes; for the others every write counts.
#[derive(Clone, Debug, Eq, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fingerprint {
    uid: Box<str>,
    generation: Option<i64>,
    resource_version: Box<str>,
}

impl Fingerprint {
    /// Reads it from an object's metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
        }
    }

    /// The uid: another one is another object, even under the same name.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The version under which the API server stored this state.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// Whether nothing that an owner sets has changed between the two, as far as numbers tell.
    #[must_use]
    pub fn same_state(&self, other: &Self) -> bool {
        self.uid == other.uid
            && match (self.generation, other.generation) {
                (Some(mine), Some(theirs)) => mine == theirs,
                _ => self.resource_version == other.resource_version,
            }
    }

    /// Whether this state was stored before `other` or is the same one. Resource versions of one
    /// kind are comparable numbers (Kubernetes documents this since 1.35, etcd's revisions have
    /// always been); where they are not numbers the answer is no.
    #[must_use]
    pub fn not_after(&self, other: &Self) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        match (
            number(&self.resource_version),
            number(&other.resource_version),
        ) {
            (Some(mine), Some(theirs)) => mine <= theirs,
            _ => self.resource_version == other.resource_version,
        }
    }
}

/// One hash per label, annotation, finalizer and owner reference of an object: changes of these
/// bump no generation. Eight bytes each instead of the texts, for thousands of tenants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks(Box<[u64]>);

impl Marks {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let mut marks = Vec::new();
        for (key, value) in meta.labels.iter().flatten() {
            marks.push(mark('l', key, value));
        }
        for (key, value) in meta.annotations.iter().flatten() {
            marks.push(mark('a', key, value));
        }
        for finalizer in meta.finalizers.iter().flatten() {
            marks.push(mark('f', finalizer, ""));
        }
        for owner in meta.owner_references.iter().flatten() {
            marks.push(mark('o', &owner.uid, &owner.name));
        }
        marks.sort_unstable();
        Self(marks.into())
    }

    /// Whether everything here is also there. The other side may hold more: controllers and
    /// people add their own labels and annotations.
    pub(crate) fn all_in(&self, other: &Self) -> bool {
        self.0
            .iter()
            .all(|mark| other.0.binary_search(mark).is_ok())
    }
}

fn mark(sort: char, key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sort, key, value).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn meta(uid: &str, generation: Option<i64>, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            generation,
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_status_write_is_the_same_state_only_where_there_is_a_generation() {
        let of = |generation, version| Fingerprint::of(&meta("u", generation, version));
        assert!(of(Some(1), "5").same_state(&of(Some(1), "9")));
        assert!(!of(Some(1), "5").same_state(&of(Some(2), "9")));
        assert!(!of(None, "5").same_state(&of(None, "9")));
        assert!(!of(None, "5").same_state(&Fingerprint::of(&meta("w", None, "5"))));
    }

    #[test]
    fn versions_compare_as_numbers() {
        let of = |version| Fingerprint::of(&meta("u", None, version));
        assert!(of("9").not_after(&of("10")));
        assert!(!of("10").not_after(&of("9")));
        assert!(!of("x").not_after(&of("10")));
    }

    #[test]
    fn marks_notice_a_missing_or_changed_entry_and_ignore_additions() {
        let ours = ObjectMeta {
            labels: Some([("a".into(), "1".into())].into()),
            owner_references: Some(vec![OwnerReference {
                uid: "u".into(),
                name: "n".into(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        };
        let mut theirs = ours.clone();
        theirs.annotations = Some([("added".into(), "x".into())].into());
        assert!(Marks::of(&ours).all_in(&Marks::of(&theirs)));
        theirs.labels = Some([("a".into(), "2".into())].into());
        assert!(!Marks::of(&ours).all_in(&Marks::of(&theirs)));
        let mut orphaned = ours.clone();
        orphaned.owner_references = None;
        assert!(!Marks::of(&ours).all_in(&Marks::of(&orphaned)));
    }
}
