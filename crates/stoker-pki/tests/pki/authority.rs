use std::collections::BTreeSet;

use stoker_pki::{Authority, Error, LeafState, LeafUsage, leaf_state};
use time::Duration;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::{YEAR, authority, client_request, der, fixture, now, server_request};

#[test]
fn a_generated_authority_says_what_it_may_do() {
    let authority = Authority::generate("tenant-ca", YEAR, now()).unwrap();
    let der = der(authority.certificate());
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();

    assert_eq!(certificate.subject().to_string(), "CN=tenant-ca");
    assert_eq!(
        certificate.validity().not_before.to_datetime(),
        now() - Duration::minutes(5)
    );
    assert_eq!(certificate.validity().not_after.to_datetime(), now() + YEAR);
    assert_eq!(authority.not_after(), now() + YEAR);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && usage.digital_signature());
    assert!(certificate.verify_signature(None).is_ok());
    assert!(certificate.raw_serial().len() >= 12);
}

#[test]
fn an_authority_reads_back_what_it_wrote() {
    let first = authority();
    let second = Authority::from_pem(first.certificate(), first.key().as_pem()).unwrap();
    assert_eq!(second.certificate(), first.certificate());
    assert_eq!(second.key(), first.key());
    assert_eq!(second.not_after(), first.not_after());
}

#[test]
fn a_customers_authority_of_each_supported_kind_signs_valid_leaves() {
    for (certificate, key) in [
        ("rsa.crt", "rsa-pkcs1.key"),
        ("rsa.crt", "rsa-pkcs8.key"),
        ("p256.crt", "p256-sec1.key"),
        ("p256.crt", "p256-pkcs8.key"),
        ("p384.crt", "p384-sec1.key"),
        ("ed25519.crt", "ed25519-pkcs8.key"),
    ] {
        let authority = Authority::from_pem(&fixture(certificate), &fixture(key))
            .unwrap_or_else(|error| panic!("{key}: {error}"));
        assert!(
            authority
                .key()
                .as_pem()
                .starts_with("-----BEGIN PRIVATE KEY-----"),
            "{key}"
        );
        // What we store is read again, unchanged.
        let again = Authority::from_pem(authority.certificate(), authority.key().as_pem()).unwrap();
        assert_eq!(again.key(), authority.key(), "{key}");

        let leaf = authority.issue(&server_request(), now()).unwrap();
        let state = leaf_state(
            &leaf.certificate,
            leaf.key.as_pem(),
            &server_request(),
            &again,
            now(),
        );
        assert!(matches!(state, LeafState::Valid { .. }), "{key}: {state:?}");
    }
}

#[test]
fn the_same_key_in_two_forms_becomes_the_same_key() {
    for (wrapped, plain) in [
        ("rsa-pkcs1.key", "rsa-pkcs8.key"),
        ("p256-sec1.key", "p256-pkcs8.key"),
    ] {
        let certificate = fixture(&format!("{}.crt", wrapped.split('-').next().unwrap()));
        let from_wrapped = Authority::from_pem(&certificate, &fixture(wrapped)).unwrap();
        let from_plain = Authority::from_pem(&certificate, &fixture(plain)).unwrap();
        let leaf = from_wrapped.issue(&client_request(), now()).unwrap();
        let state = leaf_state(
            &leaf.certificate,
            leaf.key.as_pem(),
            &client_request(),
            &from_plain,
            now(),
        );
        assert!(
            matches!(state, LeafState::Valid { .. }),
            "{wrapped}: {state:?}"
        );
    }
}

#[test]
fn a_text_that_is_no_authority_is_refused_with_its_reason() {
    let refused = |certificate: &str, key: &str| Authority::from_pem(certificate, key).unwrap_err();
    let p256 = fixture("p256.crt");
    let key = fixture("p256-sec1.key");
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    assert!(matches!(refused("", &key), Error::NotPem("certificate")));
    assert!(matches!(
        refused("no PEM", &key),
        Error::NotPem("certificate")
    ));
    assert!(matches!(
        refused(&p256, "no PEM"),
        Error::NotPem("private key")
    ));
    assert!(matches!(
        refused(&p256, &p256),
        Error::NotPem("private key")
    ));
    assert!(matches!(refused(empty, &key), Error::ReadCertificate));
    assert!(matches!(
        refused(&p256, &fixture("p384-sec1.key")),
        Error::KeyMismatch
    ));
    assert!(matches!(
        refused(&p256, authority().key().as_pem()),
        Error::KeyMismatch
    ));
    assert!(matches!(
        refused(&fixture("p521.crt"), &fixture("p521-sec1.key")),
        Error::ReadKey
    ));
    assert!(matches!(
        refused(&p256, &fixture("encrypted-pkcs8.key")),
        Error::EncryptedKey
    ));
    assert!(matches!(
        refused(&p256, &fixture("encrypted-sec1.key")),
        Error::EncryptedKey
    ));
    assert!(matches!(
        refused(&fixture("not-ca.crt"), &key),
        Error::NotAnAuthority
    ));
    assert!(matches!(
        refused(&fixture("no-cert-sign.crt"), &key),
        Error::NotAnAuthority
    ));
    assert!(matches!(
        refused(&fixture("two-units.crt"), &key),
        Error::UnsupportedSubject
    ));
    let leaf = authority().issue(&server_request(), now()).unwrap();
    assert!(matches!(
        refused(&leaf.certificate, leaf.key.as_pem()),
        Error::NotAnAuthority
    ));
}

#[test]
fn a_leaf_holds_what_was_asked_for_and_nothing_else() {
    let authority = authority();
    let request = server_request();
    let leaf = authority.issue(&request, now()).unwrap();
    let (leaf_der, authority_der) = (der(&leaf.certificate), der(authority.certificate()));
    let (_, certificate) = X509Certificate::from_der(&leaf_der).unwrap();
    let (_, issuer) = X509Certificate::from_der(&authority_der).unwrap();

    assert_eq!(certificate.subject().to_string(), "CN=kube-apiserver");
    assert_eq!(certificate.issuer(), issuer.subject());
    assert!(
        certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
    );
    assert_eq!(
        certificate.validity().not_before.to_datetime(),
        now() - Duration::minutes(5)
    );
    assert_eq!(certificate.validity().not_after.to_datetime(), now() + YEAR);
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);

    let names: BTreeSet<_> = certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    let wanted = [
        "DNSName(api.example.com)",
        "DNSName(kubernetes.default.svc)",
        "IPAddress(0a:60:00:01)",
        "IPAddress(fd:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01)",
    ];
    assert_eq!(names, wanted.map(str::to_owned).into());
    assert_eq!(authority_key_id(&certificate), subject_key_id(&issuer));
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                Some(id.key_identifier.clone()?.0.to_vec())
            }
            _ => None,
        })
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
}

#[test]
fn a_client_leaf_carries_its_user_and_its_group() {
    let leaf = authority().issue(&client_request(), now()).unwrap();
    let der = der(&leaf.certificate);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(
        certificate.subject().to_string(),
        "O=kubeadm:cluster-admins, CN=kubernetes-admin"
    );
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert!(certificate.subject_alternative_name().unwrap().is_none());
}

#[test]
fn every_leaf_has_its_own_key_and_serial_number() {
    let authority = authority();
    let mut serials = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for _ in 0..50 {
        let leaf = authority.issue(&client_request(), now()).unwrap();
        let der = der(&leaf.certificate);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        serials.insert(certificate.serial.to_bytes_be());
        keys.insert(leaf.key.as_pem().to_owned());
    }
    assert_eq!((serials.len(), keys.len()), (50, 50));
}

#[test]
fn an_expired_authority_is_read_but_issues_nothing() {
    let authority = Authority::generate("old", YEAR, now()).unwrap();
    let last = now() + YEAR - Duration::SECOND;
    assert!(authority.issue(&client_request(), last).is_ok());
    let error = authority
        .issue(&client_request(), now() + YEAR)
        .unwrap_err();
    assert!(matches!(error, Error::AuthorityExpired { not_after } if not_after == now() + YEAR));
}

#[test]
fn a_lifetime_out_of_range_is_refused() {
    for lifetime in [
        Duration::ZERO,
        -YEAR,
        Duration::minutes(9),
        YEAR * 9000,
        Duration::MAX,
    ] {
        let request = stoker_pki::LeafRequest {
            lifetime,
            ..server_request()
        };
        let error = authority().issue(&request, now()).unwrap_err();
        assert!(matches!(error, Error::Lifetime(_)), "{lifetime}: {error}");
        assert!(matches!(
            Authority::generate("ca", lifetime, now()),
            Err(Error::Lifetime(_))
        ));
    }
}

#[test]
fn only_dns_names_pass_as_dns_names() {
    let issue = |name: &str| {
        let request = stoker_pki::LeafRequest {
            dns_names: vec![name.to_owned()],
            usage: LeafUsage::ServerAndClient,
            ..server_request()
        };
        authority().issue(&request, now())
    };
    for name in [
        "localhost",
        "*.example.com",
        "a-b.c",
        "etcd_0.etcd",
        "UPPER.example.com",
    ] {
        assert!(issue(name).is_ok(), "{name}");
    }
    for name in [
        "",
        "*",
        "*.",
        "a b",
        "a..b",
        "10.0.0.1",
        "a\n",
        "ü.example",
        "a.*.b",
        "https://a",
    ] {
        assert!(
            matches!(issue(name), Err(Error::DnsName(refused)) if refused == name),
            "{name:?}"
        );
    }
}
