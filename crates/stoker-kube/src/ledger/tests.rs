use super::*;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn meta(name: &str, label: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("ns".into()),
        labels: Some([("tenant".to_owned(), label.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn config_map(label: &str) -> Desired {
    let object = ConfigMap {
        metadata: meta("a", label),
        ..ConfigMap::default()
    };
    Desired::of(&object).unwrap()
}

fn deployment() -> Desired {
    let object = Deployment {
        metadata: meta("a", "t"),
        ..Deployment::default()
    };
    Desired::of(&object).unwrap()
}

fn stored(desired: &Desired, uid: &str, version: u64, generation: Option<i64>) -> ObjectMeta {
    ObjectMeta {
        uid: Some(uid.into()),
        resource_version: Some(version.to_string()),
        generation,
        ..desired.metadata().clone()
    }
}

fn change(desired: &Desired, metadata: ObjectMeta, deleted: bool) -> Change {
    Change {
        key: desired.key().clone(),
        metadata,
        deleted,
    }
}

/// A ledger in which the object was applied as version 5.
fn applied(desired: &Desired, generation: Option<i64>) -> Ledger {
    let ledger = Ledger::new();
    ledger.begin(desired.key());
    let recorded = ledger.record(
        desired,
        &Fingerprint::of(&stored(desired, "u", 5, generation)),
    );
    assert_eq!(
        recorded,
        Recorded {
            changed: true,
            overtaken: false
        }
    );
    ledger
}

#[test]
fn what_was_applied_is_current_until_wanted_otherwise() {
    let ledger = Ledger::new();
    assert!(!ledger.is_current(&config_map("t")));
    let ledger = applied(&config_map("t"), None);
    assert!(ledger.is_current(&config_map("t")));
    assert!(!ledger.is_current(&config_map("other")));
}

#[test]
fn our_own_write_coming_back_is_an_echo_and_older_ones_too() {
    let desired = config_map("t");
    let ledger = applied(&desired, None);
    for version in [4, 5] {
        let seen = change(&desired, stored(&desired, "u", version, None), false);
        assert_eq!(ledger.observe(&seen), Observation::Echo);
    }
    assert!(ledger.is_current(&desired));
}

#[test]
fn a_later_write_by_others_is_a_change_where_there_is_no_generation() {
    let desired = config_map("t");
    let ledger = applied(&desired, None);
    let seen = change(&desired, stored(&desired, "u", 6, None), false);
    assert_eq!(ledger.observe(&seen), Observation::Changed);
    assert!(!ledger.is_current(&desired));
    ledger.begin(desired.key());
    let recorded = ledger.record(&desired, &Fingerprint::of(&stored(&desired, "u", 6, None)));
    // The server found nothing to change: version 6 was the last one known.
    assert_eq!(
        recorded,
        Recorded {
            changed: false,
            overtaken: false
        }
    );
    assert!(ledger.is_current(&desired));
}

#[test]
fn a_status_write_is_an_echo_and_a_spec_or_label_change_is_not() {
    let desired = deployment();
    let ledger = applied(&desired, Some(1));
    let status = change(&desired, stored(&desired, "u", 9, Some(1)), false);
    assert_eq!(ledger.observe(&status), Observation::Echo);

    let mut unlabelled = stored(&desired, "u", 10, Some(1));
    unlabelled.labels = None;
    let tampered = change(&desired, unlabelled, false);
    assert_eq!(ledger.observe(&tampered), Observation::Changed);
    assert!(!ledger.is_current(&desired));
    // Somebody put the label back: nothing to do any more.
    let restored = change(&desired, stored(&desired, "u", 11, Some(1)), false);
    assert_eq!(ledger.observe(&restored), Observation::Echo);
    assert!(ledger.is_current(&desired));

    let spec = change(&desired, stored(&desired, "u", 12, Some(2)), false);
    assert_eq!(ledger.observe(&spec), Observation::Changed);
}

#[test]
fn deletion_of_our_incarnation_is_a_change_and_of_an_older_one_is_not() {
    let desired = config_map("t");
    let ledger = applied(&desired, None);
    let older = change(&desired, stored(&desired, "before", 4, None), true);
    assert_eq!(ledger.observe(&older), Observation::Echo);
    let ours = change(&desired, stored(&desired, "u", 6, None), true);
    assert_eq!(ledger.observe(&ours), Observation::Changed);
    assert!(!ledger.is_current(&desired));
}

#[test]
fn an_event_before_the_answer_to_our_write_wakes_nobody() {
    let desired = config_map("t");
    let ledger = Ledger::new();
    ledger.begin(desired.key());
    let seen = change(&desired, stored(&desired, "u", 5, None), false);
    assert_eq!(ledger.observe(&seen), Observation::Echo);
    let recorded = ledger.record(&desired, &Fingerprint::of(&stored(&desired, "u", 5, None)));
    assert_eq!(
        recorded,
        Recorded {
            changed: true,
            overtaken: false
        }
    );
    assert!(ledger.is_current(&desired));
}

#[test]
fn tampering_before_the_answer_to_our_write_is_not_lost() {
    let desired = config_map("t");
    for deleted in [false, true] {
        let ledger = Ledger::new();
        ledger.begin(desired.key());
        let seen = change(&desired, stored(&desired, "u", 6, None), deleted);
        assert_eq!(ledger.observe(&seen), Observation::Echo);
        let recorded = ledger.record(&desired, &Fingerprint::of(&stored(&desired, "u", 5, None)));
        assert!(recorded.overtaken);
        assert!(!ledger.is_current(&desired));
    }
}

#[test]
fn after_a_failed_or_unfinished_write_nothing_is_current() {
    let desired = config_map("t");
    let ledger = applied(&desired, None);
    ledger.begin(desired.key());
    assert!(!ledger.is_current(&desired), "unfinished");
    ledger.abandon(desired.key());
    assert!(!ledger.is_current(&desired), "failed");
    assert_eq!(ledger.uid(desired.key()).as_deref(), Some("u"));
}

#[test]
fn objects_of_others_are_foreign() {
    let desired = config_map("t");
    let seen = change(&desired, stored(&desired, "u", 5, None), false);
    assert_eq!(Ledger::new().observe(&seen), Observation::Foreign);
}

#[test]
fn only_changes_by_others_disturb() {
    let desired = config_map("t");
    let ledger = applied(&desired, None);
    let echo = change(&desired, stored(&desired, "u", 5, None), false);
    ledger.observe(&echo);
    assert_eq!(ledger.disturbances(), 0);
    let tampered = change(&desired, stored(&desired, "u", 6, None), false);
    assert_eq!(ledger.observe(&tampered), Observation::Changed);
    assert_eq!(ledger.disturbances(), 1);
    // What comes while a write of ours is on its way is looked at by who writes.
    ledger.begin(desired.key());
    ledger.observe(&change(&desired, stored(&desired, "u", 7, None), false));
    assert_eq!(ledger.disturbances(), 1);
}
