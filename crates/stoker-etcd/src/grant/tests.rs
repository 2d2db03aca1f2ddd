use proptest::prelude::*;

use super::*;
use crate::owner::{OWNER_PREFIX, OWNER_RANGE_END, owner_key};

fn id(text: &str) -> StorageId {
    StorageId::try_from(text).unwrap()
}

/// Random ids, and ids that differ in one digit or only in digits that sort next to each other.
fn adversarial() -> impl Strategy<Value = String> {
    let edge = prop::sample::select(vec!['0', '1', '9', 'a', 'f']);
    prop_oneof![
        "[0-9a-f]{32}",
        prop::collection::vec(edge, 32).prop_map(|digits| digits.into_iter().collect()),
        (0_usize..32, "[0-9a-f]").prop_map(|(at, digit)| {
            let mut text = "0".repeat(32);
            text.replace_range(at..=at, &digit);
            text
        }),
        (0_usize..32, "[0-9a-f]").prop_map(|(at, digit)| {
            let mut text = "f".repeat(32);
            text.replace_range(at..=at, &digit);
            text
        }),
    ]
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            any::<u8>(),
            Just(b'/'),
            Just(b'0'),
            Just(0_u8),
            Just(255_u8)
        ],
        0..40,
    )
}

fn overlap(one: &Grant, other: &Grant) -> bool {
    one.key.as_slice() < other.range_end.as_slice()
        && other.key.as_slice() < one.range_end.as_slice()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn grants_of_different_ids_never_overlap(one in adversarial(), other in adversarial()) {
        let (one, other) = (id(&one), id(&other));
        let (left, right) = (Grant::of(&one), Grant::of(&other));
        prop_assert_eq!(one == other, overlap(&left, &right));
        prop_assert_eq!(one == other, one.user() == other.user());
    }
}

proptest! {
    #[test]
    fn a_grant_covers_exactly_the_keys_below_the_prefix(text in adversarial(), key in any_key()) {
        let id = id(&text);
        let grant = Grant::of(&id);
        prop_assert_eq!(grant.covers(&key), key.starts_with(id.prefix().as_bytes()));
        let own = [id.prefix().as_bytes(), &key].concat();
        prop_assert!(grant.covers(&own));
    }
}

proptest! {
    #[test]
    fn text_that_is_no_id_never_becomes_one(text in "[/0-9a-zA-Z.\u{0}\u{ff}-]{0,40}") {
        let is_id = text.len() == 32 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        prop_assert_eq!(StorageId::try_from(text.as_str()).is_ok(), is_id);
    }

    #[test]
    fn owner_records_are_outside_every_tenants_range(text in adversarial(), other in adversarial()) {
        let grant = Grant::of(&id(&text));
        let key = owner_key(&id(&other));
        prop_assert!(!grant.covers(key.as_bytes()));
        prop_assert!(!grant.covers(OWNER_PREFIX.as_bytes()));
        prop_assert!(key.as_bytes() >= OWNER_PREFIX.as_bytes());
        prop_assert!(key.as_bytes() < OWNER_RANGE_END.as_bytes());
        prop_assert!(grant.range_end.as_slice() < OWNER_PREFIX.as_bytes());
    }
}

#[test]
fn what_etcd_means_by_a_range_is_understood() {
    let grant = |key: &[u8], end: &[u8]| Grant {
        key: key.to_vec(),
        range_end: end.to_vec(),
        access: Access::Read,
    };
    assert!(grant(b"a", b"").covers(b"a"));
    assert!(!grant(b"a", b"").covers(b"aa"));
    assert!(grant(b"a", b"\0").covers(b"zz"));
    assert!(!grant(b"b", b"\0").covers(b"a"));
    assert!(grant(b"a", b"c").covers(b"b"));
    assert!(!grant(b"a", b"c").covers(b"c"));
}

const ID: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_new_tenant_gets_everything_and_a_complete_one_nothing() {
    let id = id(ID);
    assert_eq!(
        plan(&id, &Observed::default()),
        (
            vec![Change::RoleCreated, Change::UserCreated],
            vec![Change::RangeGranted, Change::RoleAttached]
        )
    );
    let complete = Observed {
        role: Some(vec![Grant::of(&id)]),
        user: Some(vec![ID.into()]),
    };
    assert_eq!(plan(&id, &complete), (vec![], vec![]));
}

#[test]
fn what_a_tenant_should_not_have_is_removed() {
    let id = id(ID);
    let everything = Grant {
        key: vec![0],
        range_end: vec![0],
        access: Access::ReadWrite,
    };
    let from_own = Grant {
        range_end: vec![0],
        ..Grant::of(&id)
    };
    let read_only = Grant {
        access: Access::Read,
        ..Grant::of(&id)
    };
    let observed = Observed {
        role: Some(vec![everything.clone(), from_own.clone(), read_only]),
        user: Some(vec!["root".into(), ID.into()]),
    };
    let (first, then) = plan(&id, &observed);
    assert_eq!(
        first,
        vec![
            Change::GrantRemoved(everything),
            Change::GrantRemoved(from_own),
            Change::RoleDetached("root".into())
        ]
    );
    assert_eq!(
        then,
        vec![Change::RangeGranted],
        "read-only becomes read and write"
    );
}

#[test]
fn every_half_made_tenant_is_completed() {
    let id = id(ID);
    for (role, user) in [
        (None, Some(vec![])),
        (Some(vec![]), None),
        (Some(vec![]), Some(vec![])),
        (Some(vec![Grant::of(&id)]), Some(vec![])),
        (None, Some(vec![ID.to_owned()])),
    ] {
        let observed = Observed { role, user };
        let (first, then) = plan(&id, &observed);
        assert_eq!(
            observed.role.is_none(),
            first.contains(&Change::RoleCreated)
        );
        assert_eq!(
            observed.user.is_none(),
            first.contains(&Change::UserCreated)
        );
        let granted = observed
            .role
            .iter()
            .flatten()
            .any(|grant| *grant == Grant::of(&id));
        assert_eq!(!granted, then.contains(&Change::RangeGranted));
        let attached = observed.user.iter().flatten().any(|role| role == ID);
        assert_eq!(!attached, then.contains(&Change::RoleAttached));
    }
}
