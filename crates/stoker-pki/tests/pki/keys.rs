use std::collections::BTreeSet;

use stoker_pki::{Authority, Error, PrivateKey, ServiceAccountKey, ca_hash, encryption_key};

use crate::{authority, client_request, fixture, now};

#[test]
fn a_service_account_key_reads_back() {
    let key = ServiceAccountKey::generate().unwrap();
    assert!(
        key.private_pem()
            .as_pem()
            .starts_with("-----BEGIN PRIVATE KEY-----")
    );
    assert!(key.public_pem().starts_with("-----BEGIN PUBLIC KEY-----"));
    let again = ServiceAccountKey::from_pem(key.private_pem().as_pem(), key.public_pem()).unwrap();
    assert_eq!(again, key);
}

#[test]
fn a_service_account_key_of_another_pair_is_refused() {
    let (one, other) = (
        ServiceAccountKey::generate().unwrap(),
        ServiceAccountKey::generate().unwrap(),
    );
    let read = |public: &str| ServiceAccountKey::from_pem(one.private_pem().as_pem(), public);
    assert!(matches!(
        read(other.public_pem()),
        Err(Error::PublicKeyMismatch)
    ));
    assert!(matches!(read(""), Err(Error::NotPem("public key"))));
    assert!(matches!(
        read(one.private_pem().as_pem()),
        Err(Error::NotPem("public key"))
    ));
    // During a rotation, the old key follows the new one.
    let both = format!("{}{}", other.public_pem(), one.public_pem());
    assert_eq!(read(&both).unwrap().public_pem(), both);
}

#[test]
fn a_customers_rsa_service_account_key_is_read() {
    let key = ServiceAccountKey::from_pem(&fixture("rsa-pkcs1.key"), &fixture("rsa.pub")).unwrap();
    assert!(
        key.private_pem()
            .as_pem()
            .starts_with("-----BEGIN PRIVATE KEY-----")
    );
    assert_eq!(key.public_pem(), fixture("rsa.pub"));
}

#[test]
fn no_key_shows_in_debug_output() {
    let authority = authority();
    let leaf = authority.issue(&client_request(), now()).unwrap();
    let service_account = ServiceAccountKey::generate().unwrap();
    for (shown, secret) in [
        (format!("{authority:?}"), authority.key()),
        (format!("{leaf:?}"), &leaf.key),
        (
            format!("{service_account:?}"),
            service_account.private_pem(),
        ),
    ] {
        assert!(shown.contains("redacted"), "{shown}");
        let line = secret.as_pem().lines().nth(1).unwrap();
        assert!(!shown.contains(line), "{shown}");
    }
}

#[test]
fn a_key_in_pkcs8_is_kept_byte_for_byte() {
    let text = fixture("rsa-pkcs8.key");
    assert_eq!(PrivateKey::from_pem(&text).unwrap().as_pem(), text);
}

#[test]
fn a_key_in_another_form_becomes_what_openssl_makes_of_it() {
    let key = PrivateKey::from_pem(&fixture("rsa-pkcs1.key")).unwrap();
    assert_eq!(key.as_pem(), fixture("rsa-pkcs8.key"));
}

#[test]
fn encryption_keys_differ() {
    let keys: BTreeSet<_> = (0..20)
        .map(|_| encryption_key().unwrap().to_vec())
        .collect();
    assert_eq!(keys.len(), 20);
}

/// `openssl x509 -pubkey -noout -in p256.crt | openssl pkey -pubin -outform der | sha256sum`,
/// the command of kubeadm's documentation.
#[test]
fn the_hash_of_an_authority_is_the_one_that_kubeadm_asks_for() {
    assert_eq!(
        ca_hash(&fixture("p256.crt")).unwrap(),
        fixture("p256.hash").trim()
    );
    assert_eq!(
        ca_hash(&fixture("rsa.crt")).unwrap(),
        fixture("rsa.hash").trim()
    );
    assert!(matches!(ca_hash(""), Err(Error::NotPem("certificate"))));
}

#[test]
fn of_a_bundle_the_first_certificate_is_the_authority() {
    let bundle = format!("{}{}", fixture("p256.crt"), fixture("rsa.crt"));
    assert_eq!(ca_hash(&bundle).unwrap(), fixture("p256.hash").trim());
    let authority = Authority::from_pem(&bundle, &fixture("p256-sec1.key")).unwrap();
    assert_eq!(authority.certificate(), bundle);
    assert!(Authority::from_pem(&bundle, &fixture("rsa-pkcs8.key")).is_err());
}
