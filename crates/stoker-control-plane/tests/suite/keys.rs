//! Irreplaceable keys: made once, kept, and never replaced in silence.

use serde_json::json;
use stoker_control_plane::{ExistingSecrets, KeysError, Names, keys};
use stoker_pki::Authority;
use time::Duration;

use crate::scenario::{cluster_ip, now, spec, tenant};

fn names() -> Names {
    Names::of(&cluster_ip().tenant)
}

/// The four Secrets without which a tenant cannot live.
fn irreplaceable() -> [String; 4] {
    let names = names();
    [
        names.ca,
        names.front_proxy_ca,
        names.service_account_keys,
        names.encryption,
    ]
}

#[test]
fn the_same_keys_come_back_from_their_secrets() {
    let scenario = cluster_ip();
    for born in [false, true] {
        let read = keys(&scenario.tenant, &scenario.existing(), born, now()).unwrap();
        let made = &scenario.keys;
        assert_eq!(
            read.certificate_authority.signer().key(),
            made.certificate_authority.signer().key()
        );
        assert_eq!(
            read.certificate_authority.signer().certificate(),
            made.certificate_authority.signer().certificate()
        );
        assert_eq!(
            read.front_proxy_authority.signer().key(),
            made.front_proxy_authority.signer().key()
        );
        assert_eq!(read.service_account, made.service_account);
        assert_eq!(read.encryption, made.encryption);
    }
}

#[test]
fn two_tenants_share_no_key() {
    let (one, two) = (cluster_ip().keys, cluster_ip().keys);
    assert_ne!(
        one.certificate_authority.signer().key(),
        two.certificate_authority.signer().key()
    );
    assert_ne!(
        one.certificate_authority.signer().key(),
        one.front_proxy_authority.signer().key()
    );
    assert_ne!(
        one.front_proxy_authority.signer().key(),
        two.front_proxy_authority.signer().key()
    );
    assert_ne!(one.service_account, two.service_account);
    assert_ne!(one.encryption, two.encryption);
}

#[test]
fn a_missing_secret_is_made_before_birth_and_lost_after_it() {
    let scenario = cluster_ip();
    for name in irreplaceable() {
        let mut existing = scenario.existing();
        existing.remove(&name);
        keys(&scenario.tenant, &existing, false, now()).unwrap();
        let error = keys(&scenario.tenant, &existing, true, now()).unwrap_err();
        assert!(
            matches!(&error, KeysError::Lost { secret, .. } if *secret == name),
            "{error}"
        );
        assert_eq!(
            error.to_string(),
            format!(
                "Secret {name} is missing; the tenant lives by these keys and new ones would cut \
                 it off: restore the Secret from backup"
            )
        );
    }
}

#[test]
fn every_damaged_or_missing_entry_is_an_error_and_shows_no_key() {
    let scenario = cluster_ip();
    for name in irreplaceable() {
        let entries: Vec<_> = scenario.existing()[&name].keys().cloned().collect();
        // tls.crt and tls.key are copies for others.
        for entry in entries
            .into_iter()
            .filter(|entry| !entry.starts_with("tls."))
        {
            for damage in [
                None,
                Some(vec![]),
                Some(vec![0xff]),
                Some(b"-----BEGIN".to_vec()),
            ] {
                let mut existing = scenario.existing();
                let data = existing.get_mut(&name).unwrap();
                match damage.clone() {
                    Some(bytes) => data.insert(entry.clone(), bytes),
                    None => data.remove(&entry),
                };
                let lost = keys(&scenario.tenant, &existing, true, now()).unwrap_err();
                assert!(matches!(&lost, KeysError::Lost { secret, .. } if *secret == name));
                let damaged = keys(&scenario.tenant, &existing, false, now()).unwrap_err();
                assert!(
                    matches!(&damaged, KeysError::Damaged { secret, .. } if *secret == name),
                    "{entry} {damage:?}: {damaged}"
                );
                assert!(
                    damaged
                        .to_string()
                        .ends_with("or delete it to have new keys made")
                );
            }
        }
    }
}

#[test]
fn a_key_of_another_authority_is_noticed() {
    let scenario = cluster_ip();
    let mut existing = scenario.existing();
    let other = Authority::generate("kubernetes", Duration::days(9), now()).unwrap();
    let data = existing.get_mut(&names().ca).unwrap();
    data.insert("ca.key".to_owned(), other.key().as_pem().into());
    let error = keys(&scenario.tenant, &existing, true, now())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the private key does not belong to the certificate"),
        "{error}"
    );
}

#[test]
fn an_authority_that_people_put_there_first_is_used() {
    let theirs = Authority::generate("Acme Root 7", Duration::days(700), now()).unwrap();
    let data = [
        ("tls.crt".to_owned(), theirs.certificate().into()),
        ("tls.key".to_owned(), theirs.key().as_pem().into()),
    ];
    let existing: ExistingSecrets = [(names().ca, data.into())].into();
    let tenant = tenant(&spec("ClusterIP", 1, "v1.36.3", &json!({})));
    let keys = keys(&tenant, &existing, false, now()).unwrap();
    assert_eq!(
        keys.certificate_authority.signer().certificate(),
        theirs.certificate()
    );
}

#[test]
fn an_encryption_configuration_changed_by_hand_is_kept_byte_for_byte() {
    let scenario = cluster_ip();
    let second = scenario.keys.encryption.as_yaml().replace(
        "      - name: key1",
        "      - name: key2\n        secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n      - name: key1",
    ) + "  - identity: {}\n";
    let mut existing = scenario.existing();
    let data = existing.get_mut(&names().encryption).unwrap();
    data.insert("encryption-config.yaml".to_owned(), second.clone().into());
    let read = keys(&scenario.tenant, &existing, true, now()).unwrap();
    assert_eq!(read.encryption.as_yaml(), second);
}

#[test]
fn an_encryption_configuration_that_would_not_encrypt_is_refused() {
    let scenario = cluster_ip();
    let good = scenario.keys.encryption.as_yaml();
    let key = good.lines().last().unwrap();
    for (bad, reason) in [
        (
            good.replace("  - secrets", "  - configmaps"),
            "is not an EncryptionConfiguration",
        ),
        (
            good.replace("secretbox", "aescbc"),
            "is not an EncryptionConfiguration",
        ),
        (
            good.replace("kind: Enc", "kind: Dec"),
            "is not an EncryptionConfiguration",
        ),
        (
            good.replace("v1\n", "v1beta1\n"),
            "is not an EncryptionConfiguration",
        ),
        (good.replace(key, "        secret: AAAA"), "is not 32 bytes"),
        (good.replace("name: key1", "name: ''"), "has no name"),
        (
            good[..good.find("  - secretbox").unwrap()].to_owned() + "  - identity: {}\n",
            "no secretbox key",
        ),
    ] {
        assert_ne!(bad, good);
        let mut existing = scenario.existing();
        let data = existing.get_mut(&names().encryption).unwrap();
        data.insert("encryption-config.yaml".to_owned(), bad.clone().into());
        let error = keys(&scenario.tenant, &existing, true, now())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let keys = cluster_ip().keys;
    let shown = format!("{keys:?}");
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("secretbox"),
        "{shown}"
    );
}
