//! What is stored encrypted, with what, and what API servers get while that changes.

use serde_json::{Value, json};
use stoker_api::v1alpha1::Encryption;
use stoker_control_plane::{Advance, EncryptionKeys, Names, keys};

use crate::golden::check;
use crate::scenario::{Scenario, now, spec};

fn with(encryption: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    spec["kubernetes"]["encryption"] = encryption.clone();
    let deployment = &mut spec["controlPlane"]["deployment"];
    deployment["additionalVolumes"] = json!([{ "name": "kms", "emptyDir": {} }]);
    deployment["additionalVolumeMounts"] =
        json!({ "apiServer": [{ "name": "kms", "mountPath": "/run/kms" }] });
    deployment["additionalInitContainers"] = json!([{
        "name": "kms-plugin", "image": "registry.example.com/kms-plugin:v1", "restartPolicy": "Always",
        "volumeMounts": [{ "name": "kms", "mountPath": "/run/kms" }],
    }]);
    Scenario::new(&spec, None)
}

fn kms() -> Value {
    json!({
        "provider": "kms", "resources": ["secrets", "configmaps"],
        "kms": { "name": "vault", "endpoint": "unix:///run/kms/kms.sock", "timeoutSeconds": 5 },
    })
}

#[test]
fn a_kms_plugin_from_birth() {
    check("kms", &with(&kms()));
}

#[test]
fn keys_and_the_record_of_their_changes_come_back_from_their_secret() {
    for asked in [
        json!({}),
        json!({ "provider": "aescbc", "keyGeneration": 4 }),
        kms(),
    ] {
        let mut scenario = with(&asked);
        let born = scenario.keys.encryption.clone();
        assert_eq!(born.record().is_some(), asked != json!({}));
        let other: Encryption = serde_json::from_value(json!({ "provider": "aesgcm" })).unwrap();
        let changed = born.after(Advance::Begin, &other).unwrap().unwrap();
        scenario.keys.encryption = changed.clone();
        let mut existing = scenario.existing();
        let read = keys(&scenario.tenant, &existing, true, now()).unwrap();
        assert!(read.encryption == changed);

        // The configuration follows from the record, and nothing from half a record.
        let secret = Names::of(&scenario.tenant).encryption;
        let data = existing.get_mut(&secret).unwrap();
        data.insert("encryption-config.yaml".to_owned(), b"tampered".to_vec());
        let read = keys(&scenario.tenant, &existing, true, now()).unwrap();
        assert_eq!(read.encryption.as_yaml(), changed.as_yaml());
        let data = existing.get_mut(&secret).unwrap();
        data.get_mut("encryption-record.json").unwrap().truncate(40);
        keys(&scenario.tenant, &existing, true, now()).unwrap_err();
    }
}

/// Resources and providers in the order in which an API server tries them.
fn tried(keys: &EncryptionKeys) -> Vec<String> {
    let configuration: Value = serde_saphyr::from_str(keys.as_yaml()).unwrap();
    assert_eq!(configuration["kind"], "EncryptionConfiguration");
    let words = |list: &Value, word: &dyn Fn(&Value) -> String| {
        let words: Vec<_> = list.as_array().unwrap().iter().map(word).collect();
        words.join(" ")
    };
    let provider = |provider: &Value| {
        let (kind, fields) = provider.as_object().unwrap().iter().next().unwrap();
        let name = fields["keys"][0]["name"]
            .as_str()
            .or(fields["name"].as_str());
        name.map_or(kind.clone(), |name| format!("{kind}/{name}"))
    };
    let rule = |rule: &Value| {
        let resources = words(&rule["resources"], &|name| {
            name.as_str().unwrap().to_owned()
        });
        format!("{resources}: {}", words(&rule["providers"], &provider))
    };
    let rules = configuration["resources"].as_array().unwrap();
    rules.iter().map(rule).collect()
}

#[test]
fn the_order_of_providers_turns_before_the_old_one_goes() {
    let wanted = |json: Value| serde_json::from_value::<Encryption>(json).unwrap();
    let born = EncryptionKeys::generate(&Encryption::default()).unwrap();
    let steps = [
        Advance::Begin,
        Advance::Write,
        Advance::TakeAway,
        Advance::Forget,
    ];
    let after = |wish: Value| {
        let (mut keys, wish) = (born.clone(), wanted(wish));
        steps.map(|step| {
            keys = keys.after(step, &wish).unwrap().unwrap();
            tried(&keys)
        })
    };
    assert_eq!(
        after(json!({ "provider": "aescbc" })),
        [
            ["secrets: secretbox/key1 aescbc/key2"],
            ["secrets: aescbc/key2 secretbox/key1"],
            ["secrets: aescbc/key2"],
            ["secrets: aescbc/key2"],
        ]
    );
    let [reading, writing, leaving, _] = after(json!({ "resources": ["secrets", "configmaps"] }));
    let kept = "secrets: secretbox/key1";
    assert_eq!(reading, [kept, "configmaps: identity secretbox/key1"]);
    assert_eq!(writing, [kept, "configmaps: secretbox/key1 identity"]);
    assert_eq!(leaving, ["configmaps secrets: secretbox/key1"]);
}
