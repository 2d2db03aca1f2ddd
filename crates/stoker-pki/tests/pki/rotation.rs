use stoker_pki::{
    Authority, KeyedCertificate, LeafRequest, LeafState, LeafUsage, ReissueReason, leaf_state,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{YEAR, authority, client_request, fixture, now, server_request};

fn judge(
    leaf: &KeyedCertificate,
    request: &LeafRequest,
    authority: &Authority,
    at: OffsetDateTime,
) -> LeafState {
    leaf_state(&leaf.certificate, leaf.key.as_pem(), request, authority, at)
}

fn reason(state: LeafState) -> ReissueReason {
    match state {
        LeafState::Reissue(reason) => reason,
        LeafState::Valid { renew_at } => panic!("valid until {renew_at}"),
    }
}

#[test]
fn a_leaf_is_renewed_when_a_third_of_its_validity_is_left() {
    let authority = authority();
    let leaf = authority.issue(&server_request(), now()).unwrap();
    let validity = YEAR + Duration::minutes(5);
    let renew_at = now() + YEAR - validity / 3;

    let state = judge(&leaf, &server_request(), &authority, now());
    assert_eq!(state, LeafState::Valid { renew_at });
    let before = judge(
        &leaf,
        &server_request(),
        &authority,
        renew_at - Duration::SECOND,
    );
    assert_eq!(before, LeafState::Valid { renew_at });
    for late in [renew_at, now() + YEAR, now() + YEAR * 5] {
        let state = judge(&leaf, &server_request(), &authority, late);
        assert_eq!(reason(state), ReissueReason::Expiring, "{late}");
    }
}

#[test]
fn a_leaf_that_ends_with_its_authority_is_kept_to_that_end() {
    let authority = Authority::generate("short", YEAR, now()).unwrap();
    let late = now() + Duration::days(300);
    let leaf = authority.issue(&server_request(), late).unwrap();
    let end = authority.not_after();

    assert_eq!(
        judge(&leaf, &server_request(), &authority, late),
        LeafState::Valid { renew_at: end }
    );
    let last = judge(&leaf, &server_request(), &authority, end - Duration::SECOND);
    assert_eq!(last, LeafState::Valid { renew_at: end });
    assert_eq!(
        reason(judge(&leaf, &server_request(), &authority, end)),
        ReissueReason::Expiring
    );
}

#[test]
fn a_leaf_from_the_future_is_issued_anew() {
    let authority = authority();
    let leaf = authority.issue(&server_request(), now()).unwrap();
    let behind = now() - Duration::minutes(6);
    let state = judge(&leaf, &server_request(), &authority, behind);
    assert_eq!(reason(state), ReissueReason::NotYetValid);
    let slightly_behind = now() - Duration::minutes(4);
    let state = judge(&leaf, &server_request(), &authority, slightly_behind);
    assert!(matches!(state, LeafState::Valid { .. }));
}

#[test]
fn damaged_text_is_issued_anew() {
    let authority = authority();
    let leaf = authority.issue(&server_request(), now()).unwrap();
    let (certificate, key) = (leaf.certificate.as_str(), leaf.key.as_pem());
    let cut = &certificate[..certificate.len() / 2];
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key) in [
        ("", key),
        (cut, key),
        (garbled, key),
        (certificate, ""),
        (certificate, &key[..60]),
    ] {
        let state = leaf_state(certificate, key, &server_request(), &authority, now());
        assert_eq!(reason(state), ReissueReason::Unreadable);
    }
}

#[test]
fn a_key_of_another_leaf_is_noticed() {
    let authority = authority();
    let mut leaf = authority.issue(&server_request(), now()).unwrap();
    leaf.key = authority.issue(&server_request(), now()).unwrap().key;
    let state = judge(&leaf, &server_request(), &authority, now());
    assert_eq!(reason(state), ReissueReason::KeyMismatch);
}

#[test]
fn another_authority_of_the_same_name_is_noticed() {
    let leaf = authority().issue(&server_request(), now()).unwrap();
    let state = judge(&leaf, &server_request(), &authority(), now());
    assert_eq!(reason(state), ReissueReason::WrongAuthority);
}

#[test]
fn the_same_key_under_another_name_is_another_authority() {
    let key = fixture("rsa-pkcs1.key");
    let rsa = Authority::from_pem(&fixture("rsa.crt"), &key).unwrap();
    let renamed = Authority::from_pem(&fixture("rsa-renamed.crt"), &key).unwrap();
    let leaf = rsa.issue(&server_request(), now()).unwrap();
    assert!(matches!(
        judge(&leaf, &server_request(), &rsa, now()),
        LeafState::Valid { .. }
    ));
    let state = judge(&leaf, &server_request(), &renamed, now());
    assert_eq!(reason(state), ReissueReason::WrongAuthority);
}

#[test]
fn a_tampered_leaf_fails_its_signature() {
    let authority = authority();
    let leaf = authority.issue(&client_request(), now()).unwrap();
    let mut der = crate::der(&leaf.certificate);
    let name = b"kubeadm:cluster-admins";
    let at = der
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    der[at..at + name.len()].copy_from_slice(b"system:masters:no:more");
    let forged = pem(&der);
    let request = LeafRequest {
        organizations: vec!["system:masters:no:more".into()],
        ..client_request()
    };
    let state = leaf_state(&forged, leaf.key.as_pem(), &request, &authority, now());
    assert_eq!(reason(state), ReissueReason::WrongAuthority);
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn each_change_of_the_request_has_its_reason() {
    let authority = authority();
    let server = authority.issue(&server_request(), now()).unwrap();
    let client = authority.issue(&client_request(), now()).unwrap();
    let with = |change: fn(&mut LeafRequest), base: LeafRequest| {
        let mut request = base;
        change(&mut request);
        request
    };
    let server_case = |change| {
        reason(judge(
            &server,
            &with(change, server_request()),
            &authority,
            now(),
        ))
    };
    let client_case = |change| {
        reason(judge(
            &client,
            &with(change, client_request()),
            &authority,
            now(),
        ))
    };

    let usage = ReissueReason::UsageChanged;
    assert_eq!(
        server_case(|request| request.usage = LeafUsage::Client),
        usage
    );
    assert_eq!(
        server_case(|request| request.usage = LeafUsage::ServerAndClient),
        usage
    );
    assert_eq!(
        client_case(|request| request.usage = LeafUsage::Server),
        usage
    );

    let subject = ReissueReason::SubjectChanged;
    assert_eq!(
        server_case(|request| request.common_name = "other".into()),
        subject
    );
    assert_eq!(
        server_case(|request| request.organizations = vec!["group".into()]),
        subject
    );
    assert_eq!(
        client_case(|request| request.organizations.clear()),
        subject
    );
    assert_eq!(
        client_case(|request| request.organizations = vec!["group".into()]),
        subject
    );

    let missing = |name: &str| ReissueReason::MissingName(name.into());
    assert_eq!(
        server_case(|request| request.dns_names.push("new.example".into())),
        missing("new.example")
    );
    assert_eq!(
        server_case(|request| request.ip_addresses.push("10.0.0.9".parse().unwrap())),
        missing("10.0.0.9")
    );
    let extra = |name: &str| ReissueReason::ExtraName(name.into());
    assert_eq!(
        server_case(|request| request.dns_names.truncate(1)),
        extra("api.example.com")
    );
    assert_eq!(
        server_case(|request| request.ip_addresses.truncate(1)),
        extra("fd00::1")
    );
}

#[test]
fn order_case_and_repetition_of_names_change_nothing() {
    let authority = authority();
    let leaf = authority.issue(&server_request(), now()).unwrap();
    let mut request = server_request();
    request.dns_names.reverse();
    request.dns_names.push("API.example.com".into());
    request.ip_addresses.reverse();
    request.ip_addresses.push("10.96.0.1".parse().unwrap());
    let state = judge(&leaf, &request, &authority, now());
    assert!(matches!(state, LeafState::Valid { .. }), "{state:?}");
    let again = authority.issue(&request, now()).unwrap();
    let state = judge(&again, &server_request(), &authority, now());
    assert!(matches!(state, LeafState::Valid { .. }), "{state:?}");
}

/// It is signed by the right key and has the right subject and usage, but could sign others.
#[test]
fn an_authority_in_place_of_a_leaf_is_issued_anew() {
    let (certificate, key) = (fixture("serving-ca.crt"), fixture("p256-sec1.key"));
    let authority = Authority::from_pem(&certificate, &key).unwrap();
    let request = LeafRequest {
        common_name: "serving-ca".into(),
        dns_names: vec![],
        ip_addresses: vec![],
        ..server_request()
    };
    let state = leaf_state(&certificate, &key, &request, &authority, now());
    assert_eq!(reason(state), ReissueReason::UsageChanged);
}

#[test]
fn reasons_read_as_phrases() {
    for reason in [
        ReissueReason::Unreadable,
        ReissueReason::KeyMismatch,
        ReissueReason::WrongAuthority,
        ReissueReason::UsageChanged,
        ReissueReason::SubjectChanged,
        ReissueReason::NotYetValid,
        ReissueReason::Expiring,
    ] {
        let text = reason.to_string();
        assert!(
            text.starts_with(char::is_lowercase) && text.len() > 10,
            "{text}"
        );
    }
    assert!(
        ReissueReason::MissingName("a.b".into())
            .to_string()
            .contains("a.b")
    );
    assert!(
        ReissueReason::ExtraName("a.b".into())
            .to_string()
            .contains("a.b")
    );
}

/// rcgen writes one organization; the rest is ours, and signed anew.
#[test]
fn a_client_is_in_all_its_groups_and_in_no_other() {
    let authorities = [
        authority(),
        Authority::from_pem(&fixture("rsa.crt"), &fixture("rsa-pkcs1.key")).unwrap(),
        Authority::from_pem(&fixture("p384.crt"), &fixture("p384-sec1.key")).unwrap(),
    ];
    let groups = |groups: &[&str]| LeafRequest {
        organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..client_request()
    };
    for authority in &authorities {
        let wanted = groups(&["platform", "ops: é", "auditors"]);
        let leaf = authority.issue(&wanted, now()).unwrap();
        let der = crate::der(&leaf.certificate);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let said: Vec<_> = parsed.subject().iter_organization().collect();
        let said: Vec<_> = said.iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(said, ["auditors", "ops: é", "platform"]);
        let judged = |request: &LeafRequest| {
            leaf_state(
                &leaf.certificate,
                leaf.key.as_pem(),
                request,
                authority,
                now(),
            )
        };
        let state = judged(&groups(&["auditors", "platform", "ops: é", "platform"]));
        assert!(matches!(state, LeafState::Valid { .. }), "{state:?}");
        for other in [&["platform", "auditors"][..], &["platform"], &[]] {
            assert_eq!(
                reason(judged(&groups(other))),
                ReissueReason::SubjectChanged
            );
        }
        let end = stoker_pki::not_after(&leaf.certificate).unwrap();
        assert_eq!(end, parsed.validity().not_after.to_datetime());
    }
}
