use stoker_pki::{
    Authority, BootstrapToken, JoinCredential, LeafRequest, LeafUsage, NodeRequest, SigningRequest,
    ca_hash, is_node_credential, is_signed_by,
};
use time::{Duration, OffsetDateTime};

fn authority() -> String {
    let now = OffsetDateTime::now_utc();
    let authority = stoker_pki::Authority::generate("one", Duration::days(1), now).unwrap();
    authority.certificate().to_owned()
}

#[test]
fn the_string_comes_back_as_it_was_and_a_damaged_one_does_not() {
    let credential = JoinCredential {
        server: "[fd00::1]:6443".to_owned(),
        ca_hashes: vec![ca_hash(&authority()).unwrap()],
        token: BootstrapToken::generate().unwrap(),
    };
    let text = credential.encode().unwrap();
    assert!(text.starts_with("stoker1."), "{text}");
    assert_eq!(
        JoinCredential::parse(&format!(" {text}\n")).unwrap(),
        credential
    );
    assert!(!format!("{credential:?}").contains(credential.token.secret()));
    for damaged in [
        "",
        "stoker1.",
        "stoker2.e30",
        &text[1..],
        &text[..text.len() - 4],
        "stoker1.e30",
    ] {
        assert!(JoinCredential::parse(damaged).is_err(), "{damaged:?}");
    }
}

#[test]
fn of_a_bundle_only_what_is_pinned_counts_in_either_order() {
    let (one, other) = (authority(), authority());
    let mut credential = JoinCredential {
        server: "a:1".to_owned(),
        ca_hashes: vec![ca_hash(&one).unwrap()],
        token: BootstrapToken::generate().unwrap(),
    };
    assert_eq!(credential.pinned(&one), one);
    for (first, second) in [(&one, &other), (&other, &one)] {
        assert_eq!(credential.pinned(&format!("{first}{second}")), one);
    }
    assert_eq!(credential.pinned(&other), "");
    assert_eq!(credential.pinned(""), "");
    credential.ca_hashes.push(ca_hash(&other).unwrap());
    let both = format!("{other}{one}");
    assert_eq!(credential.pinned(&both), both);
}

#[test]
fn a_token_is_as_the_api_server_reads_it() {
    let token = BootstrapToken::generate().unwrap();
    assert_eq!(BootstrapToken::parse(&token.text()), Some(token));
    for other in [
        "abcdef",
        "abcdef.0123456789ABCDEF",
        "abcde.0123456789abcdef",
    ] {
        assert_eq!(BootstrapToken::parse(other), None, "{other}");
    }
}

#[test]
fn an_attempt_that_is_resumed_asks_with_the_same_key() {
    let first = NodeRequest::new("w1", None).unwrap();
    let again = NodeRequest::new("w1", Some(first.key.as_pem())).unwrap();
    let read = |request: &NodeRequest| SigningRequest::from_pem(request.request.as_bytes());
    let (asked, resumed) = (read(&first).unwrap(), read(&again).unwrap());
    assert_eq!(asked.common_name, "system:node:w1");
    assert_eq!(asked.organizations, ["system:nodes"]);
    assert!(asked.dns_names.is_empty() && asked.ip_addresses.is_empty());
    assert_eq!(asked.key_hash, resumed.key_hash);
    let another = read(&NodeRequest::new("w1", None).unwrap()).unwrap();
    assert_ne!(asked.key_hash, another.key_hash);
}

#[test]
fn who_has_signed_is_told_by_the_key_and_of_a_bundle_by_its_first() {
    let now = OffsetDateTime::now_utc();
    let made = || Authority::generate("kubernetes", Duration::days(9), now).unwrap();
    let (one, other) = (made(), made());
    let leaf = one.issue(&super::client_request(), now).unwrap();
    let file = format!("{}{}", leaf.certificate, leaf.key.as_pem());
    assert!(is_signed_by(&file, one.certificate()));
    // Of the same name.
    assert!(!is_signed_by(&file, other.certificate()));
    let both = |first: &Authority, second: &Authority| {
        format!("{}{}", first.certificate(), second.certificate())
    };
    assert!(is_signed_by(&file, &both(&one, &other)));
    assert!(!is_signed_by(&file, &both(&other, &one)));
    for nothing in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(!is_signed_by(nothing, one.certificate()));
        assert!(!is_signed_by(&file, nothing));
    }
}

#[test]
fn a_node_has_a_certificate_of_its_own_of_its_tenant_and_its_key_until_it_ends() {
    let now = OffsetDateTime::now_utc();
    let made = || Authority::generate("kubernetes", Duration::days(9), now).unwrap();
    let (one, other) = (made(), made());
    let request = LeafRequest {
        common_name: "system:node:w1".to_owned(),
        organizations: vec!["system:nodes".to_owned()],
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: Duration::days(1),
    };
    let issued = one.issue(&request, now).unwrap();
    let again = one.issue(&request, now).unwrap();
    let file = format!("{}{}", issued.certificate, issued.key.as_pem());
    assert!(is_node_credential(&file, "w1", one.certificate(), now));
    for (first, second) in [(&one, &other), (&other, &one)] {
        let both = format!("{}{}", first.certificate(), second.certificate());
        assert!(is_node_credential(&file, "w1", &both, now));
    }
    // Of the same name as the other, and another one.
    assert!(!is_node_credential(&file, "w1", other.certificate(), now));
    assert!(!is_node_credential(&file, "w2", one.certificate(), now));
    let later = now + Duration::days(2);
    assert!(!is_node_credential(&file, "w1", one.certificate(), later));
    let swapped = format!("{}{}", issued.certificate, again.key.as_pem());
    assert!(!is_node_credential(&swapped, "w1", one.certificate(), now));
    let keyless = &issued.certificate;
    assert!(!is_node_credential(keyless, "w1", one.certificate(), now));
    assert!(!is_node_credential("", "w1", one.certificate(), now));
}
