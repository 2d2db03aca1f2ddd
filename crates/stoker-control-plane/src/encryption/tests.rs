//! What comes next of a change, and what it makes of the keys.

mod model;

use serde_json::json;
use stoker_api::v1alpha1::Encryption;

use super::*;

fn wanted(json: serde_json::Value) -> Encryption {
    serde_json::from_value(json).unwrap()
}

fn kms(name: &str) -> serde_json::Value {
    json!({ "name": name, "endpoint": format!("unix:///run/kms/{name}.sock") })
}

/// What people may ask for.
fn wishes() -> Vec<Encryption> {
    [
        json!({}),
        json!({ "keyGeneration": 1 }),
        json!({ "provider": "aescbc" }),
        json!({ "provider": "aesgcm", "resources": ["secrets", "configmaps"] }),
        json!({ "provider": "secretbox", "resources": ["secrets", "configmaps"] }),
        json!({ "provider": "kms", "kms": kms("one") }),
        json!({ "provider": "kms", "kms": kms("one"), "keyGeneration": 1 }),
        json!({ "provider": "kms", "kms": kms("two"), "resources": ["secrets", "leases.coordination.k8s.io"] }),
    ]
    .map(wanted)
    .into()
}

/// The steps of a change with servers that follow at once.
fn steps(keys: &mut EncryptionKeys, wanted: &Encryption) -> Vec<Step> {
    let mut all = Vec::new();
    let mut stored = Stored::Unknown;
    loop {
        let servers = Servers::Current;
        let step = keys.next(wanted, Observed { servers, stored });
        all.push(step);
        stored = match step {
            Step::Rewrite | Step::Check => Stored::New,
            Step::Advance(advance) => {
                *keys = keys.after(advance, wanted).unwrap().unwrap();
                Stored::Unknown
            }
            _ => return all,
        };
    }
}

const KEY_CHANGE: [Step; 7] = [
    Step::Advance(Advance::Begin),
    Step::Advance(Advance::Write),
    Step::Rewrite,
    Step::Advance(Advance::TakeAway),
    Step::Check,
    Step::Advance(Advance::Forget),
    Step::Rest,
];

#[test]
fn provider_and_resources_change_one_after_the_other() {
    let mut keys = EncryptionKeys::generate(&Encryption::default()).unwrap();
    let both = wanted(
        json!({ "provider": "kms", "kms": kms("one"), "resources": ["secrets", "configmaps"] }),
    );
    let all = steps(&mut keys, &both);
    assert_eq!(all, [&KEY_CHANGE[..6], &KEY_CHANGE].concat());
    let fewer = wanted(json!({ "provider": "kms", "kms": kms("one") }));
    assert_eq!(
        steps(&mut keys, &fewer),
        [Step::Refuse(Refusal::ResourcesOfPlugin)]
    );
    assert_eq!(steps(&mut keys, &Encryption::default()).len(), 13);
}

#[test]
fn a_plugin_that_has_another_key_behind_its_name_only_has_everything_rewritten() {
    let once = wanted(json!({ "provider": "kms", "kms": kms("one") }));
    let mut keys = EncryptionKeys::generate(&once).unwrap();
    let again = wanted(json!({ "provider": "kms", "kms": kms("one"), "keyGeneration": 1 }));
    let expected = [&KEY_CHANGE[..1], &KEY_CHANGE[2..]].concat();
    assert_eq!(steps(&mut keys, &again), expected);
    let mut elsewhere = again.clone();
    elsewhere.kms.as_mut().unwrap().timeout_seconds = Some(9);
    let adjusted = [Step::Advance(Advance::Adjust), Step::Rest];
    assert_eq!(steps(&mut keys, &elsewhere), adjusted);
    assert!(keys.as_yaml().contains("timeout: 9s"));
}

#[test]
fn what_was_written_by_hand_stays_and_is_not_changed() {
    let yaml = EncryptionKeys::generate(&Encryption::default()).unwrap();
    let yaml = yaml.as_yaml().to_owned() + "  - identity: {}\n";
    let mut keys = EncryptionKeys::read(&yaml, None).unwrap();
    assert_eq!(steps(&mut keys, &Encryption::default()), [Step::Rest]);
    let other = wanted(json!({ "provider": "aesgcm" }));
    assert_eq!(steps(&mut keys, &other), [Step::Refuse(Refusal::ByHand)]);
    assert_eq!(keys.as_yaml(), yaml);
}

#[test]
fn a_new_key_has_another_name_than_one_that_was_put_there_by_hand() {
    let born = EncryptionKeys::generate(&Encryption::default()).unwrap();
    for name in ["key1", "key2", "key3"] {
        let yaml = born.as_yaml().replace("key1", name);
        let mut keys = EncryptionKeys::read(&yaml, None).unwrap();
        let again = wanted(json!({ "keyGeneration": 1 }));
        assert_eq!(steps(&mut keys, &again), KEY_CHANGE);
        let now = keys.state.unwrap().scheme.provider;
        assert_ne!(now.key().unwrap().name, name);
    }
}

#[test]
fn another_wish_before_anything_was_written_takes_the_new_key_back() {
    let mut keys = EncryptionKeys::generate(&Encryption::default()).unwrap();
    let other = wanted(json!({ "provider": "aesgcm" }));
    keys = keys.after(Advance::Begin, &other).unwrap().unwrap();
    let behind = Observed {
        servers: Servers::Behind,
        stored: Stored::Unknown,
    };
    assert_eq!(keys.next(&other, behind), Step::AwaitLoading);
    let step = keys.next(&Encryption::default(), behind);
    assert_eq!(step, Step::Advance(Advance::Cancel));
    keys = keys.after(Advance::Write, &other).unwrap().unwrap();
    assert_eq!(
        keys.next(&Encryption::default(), behind),
        Step::AwaitLoading
    );
}

#[test]
fn a_record_brings_back_the_same_and_shows_no_key() {
    for wish in wishes() {
        let mut keys = EncryptionKeys::generate(&Encryption::default()).unwrap();
        if let Some(next) = keys.after(Advance::Begin, &wish).unwrap() {
            assert!(next.follows(&keys) && !keys.follows(&next));
            keys = next;
        }
        let Some(record) = keys.record() else {
            continue;
        };
        let read = EncryptionKeys::read("anything", Some(&record)).unwrap();
        assert!(read == keys && read.as_yaml() == keys.as_yaml());
        assert!(!keys.describe().contains("secret: ") && format!("{keys:?}").contains("redacted"));
        let damaged = record.replace("\"secret\":\"", "\"secret\":\"A");
        if damaged != *record {
            assert!(EncryptionKeys::read("anything", Some(&damaged)).is_err());
        }
    }
    let others = EncryptionKeys::generate(&wishes()[2]).unwrap();
    let keys = EncryptionKeys::generate(&Encryption::default()).unwrap();
    assert!(!others.follows(&keys), "another tenant's");
}
