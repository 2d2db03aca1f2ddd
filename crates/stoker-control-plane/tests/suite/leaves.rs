//! Certificates are kept while they are good, and replaced when they are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use stoker_api::v1alpha1::CertificateAuthority;
use stoker_control_plane::{
    AuthorityAdvance, AuthorityRole, Endpoint, ExistingSecrets, Host, Leaves, Names,
    RotatingAuthority, leaves,
};
use stoker_pki::{Authority, ReissueReason, certificate_count};
use time::{Duration, OffsetDateTime};

use crate::scenario::{Scenario, cluster_ip, now, spec};

/// Every certificate by the name of its Secret.
fn certificates(scenario: &Scenario, leaves: &Leaves) -> BTreeMap<String, String> {
    let names = Names::of(&scenario.tenant);
    [
        (names.api_server_certificate, &leaves.serving),
        (names.kubelet_client, &leaves.kubelet_client),
        (names.front_proxy_client, &leaves.front_proxy_client),
        (names.admin_kubeconfig, &leaves.admin),
        (
            names.controller_manager_kubeconfig,
            &leaves.controller_manager,
        ),
        (names.scheduler_kubeconfig, &leaves.scheduler),
    ]
    .map(|(name, leaf)| (name, leaf.certificate.clone()))
    .into()
}

fn again(scenario: &Scenario, existing: &ExistingSecrets, now: OffsetDateTime) -> Leaves {
    leaves(
        &scenario.tenant,
        &scenario.keys,
        &scenario.exposure,
        existing,
        now,
    )
    .unwrap()
}

/// Names of the Secrets whose certificates changed.
fn changed(scenario: &Scenario, after: &Leaves) -> Vec<String> {
    let before = certificates(scenario, &scenario.leaves);
    let after = certificates(scenario, after);
    before
        .into_iter()
        .filter(|(name, leaf)| after[name] != *leaf)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn good_certificates_are_kept_byte_for_byte_and_so_are_the_objects() {
    let mut scenario = cluster_ip();
    let before = scenario.build();
    let after = again(&scenario, &scenario.existing(), now() + Duration::days(30));
    assert_eq!(changed(&scenario, &after), Vec::<String>::new());
    assert!(after.reissued.is_empty());
    assert_eq!(after.renew_at, scenario.leaves.renew_at);
    scenario.leaves = after;
    assert_eq!(scenario.build(), before);
}

#[test]
fn all_are_renewed_together_in_the_last_third_of_their_year() {
    let scenario = cluster_ip();
    let renew_at = scenario.leaves.renew_at;
    assert!(renew_at > now() + Duration::days(240) && renew_at < now() + Duration::days(246));
    let before = again(&scenario, &scenario.existing(), renew_at - Duration::SECOND);
    assert!(before.reissued.is_empty());
    let after = again(&scenario, &scenario.existing(), renew_at);
    assert_eq!(changed(&scenario, &after).len(), 6);
    assert_eq!(after.reissued.len(), 6);
    assert!(
        after
            .reissued
            .values()
            .all(|reason| *reason == ReissueReason::Expiring)
    );
    assert!(after.renew_at > renew_at + Duration::days(240));
}

/// The front-proxy client ends with its authority, long before the others want to be renewed.
#[test]
fn the_next_look_is_at_the_first_certificate_to_renew() {
    let mut scenario = cluster_ip();
    let end = now() + Duration::days(100);
    let authority = Authority::generate("front-proxy-ca", Duration::days(100), now()).unwrap();
    let authority = RotatingAuthority::born(AuthorityRole::FrontProxy, authority, 0);
    scenario.keys.front_proxy_authority = Arc::new(authority);
    let after = again(&scenario, &scenario.existing(), now());
    assert_eq!(after.renew_at, end);
    scenario.leaves = after;
    assert_eq!(again(&scenario, &scenario.existing(), now()).renew_at, end);
}

#[test]
fn a_new_address_changes_the_serving_certificate_only() {
    let mut scenario = cluster_ip();
    let existing = scenario.existing();
    let host = Host::Name("lb-1.example.net".to_owned());
    scenario.exposure.endpoint = Some(Endpoint { host, port: 443 });
    let after = again(&scenario, &existing, now());
    let serving = Names::of(&scenario.tenant).api_server_certificate;
    assert_eq!(changed(&scenario, &after), std::slice::from_ref(&serving));
    let reason = ReissueReason::MissingName("lb-1.example.net".to_owned());
    assert_eq!(after.reissued, [(serving, reason)].into());
}

#[test]
fn a_name_asked_for_is_added_and_one_no_longer_asked_for_goes() {
    let mut scenario = cluster_ip();
    let existing = scenario.existing();
    scenario.tenant.network.cert_sans = vec!["203.0.113.9".to_owned()];
    let with = again(&scenario, &existing, now());
    let reason = ReissueReason::MissingName("203.0.113.9".to_owned());
    assert_eq!(with.reissued.into_values().collect::<Vec<_>>(), [reason]);
    scenario.leaves.serving = with.serving;
    let existing = scenario.existing();
    scenario.tenant.network.cert_sans.clear();
    let without = again(&scenario, &existing, now());
    let reason = ReissueReason::ExtraName("203.0.113.9".to_owned());
    assert_eq!(without.reissued.into_values().collect::<Vec<_>>(), [reason]);
}

#[test]
fn a_deleted_secret_heals_alone() {
    let scenario = cluster_ip();
    for name in certificates(&scenario, &scenario.leaves).into_keys() {
        let mut existing = scenario.existing();
        existing.remove(&name);
        let after = again(&scenario, &existing, now());
        assert_eq!(changed(&scenario, &after), [name]);
        assert!(
            after.reissued.is_empty(),
            "nothing was there to be replaced"
        );
    }
}

#[test]
fn a_damaged_entry_heals_alone() {
    let scenario = cluster_ip();
    for name in certificates(&scenario, &scenario.leaves).into_keys() {
        // What is not read from: the rendering of another part.
        let unread = [
            "admin.conf",
            "ca-signer.crt",
            "controller-manager.conf",
            "scheduler.conf",
        ];
        let entries: Vec<_> = scenario.existing()[&name].keys().cloned().collect();
        for entry in entries
            .into_iter()
            .filter(|entry| !unread.contains(&entry.as_str()))
        {
            let mut existing = scenario.existing();
            existing
                .get_mut(&name)
                .unwrap()
                .insert(entry, b"rubbish".to_vec());
            let after = again(&scenario, &existing, now());
            assert_eq!(changed(&scenario, &after), std::slice::from_ref(&name));
            assert_eq!(
                after.reissued,
                [(name.clone(), ReissueReason::Unreadable)].into()
            );
        }
    }
}

#[test]
fn certificates_of_another_authority_are_replaced() {
    let scenario = cluster_ip();
    let other = cluster_ip();
    let after = again(&scenario, &other.existing(), now());
    assert_eq!(after.reissued.len(), 6);
    assert!(
        after
            .reissued
            .values()
            .all(|reason| *reason == ReissueReason::WrongAuthority)
    );
}

#[test]
fn a_name_that_is_none_is_an_error() {
    let network = json!({});
    let mut scenario = Scenario::new(&spec("ClusterIP", 1, "v1.36.3", &network), None);
    scenario.tenant.network.cert_sans = vec!["not a name".to_owned()];
    let error = leaves(
        &scenario.tenant,
        &scenario.keys,
        &scenario.exposure,
        &ExistingSecrets::new(),
        now(),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "\"not a name\" is not a DNS name"
    );
}

#[test]
fn certificates_of_a_new_authority_go_with_its_link_and_are_kept_with_it() {
    let mut scenario = cluster_ip();
    let wanted: CertificateAuthority = serde_json::from_value(json!({ "generation": 1 })).unwrap();
    for advance in [AuthorityAdvance::Begin, AuthorityAdvance::Sign] {
        let keys = &mut scenario.keys;
        for authority in [
            &mut keys.certificate_authority,
            &mut keys.front_proxy_authority,
        ] {
            let next = authority.after(advance, &wanted, now()).unwrap();
            *authority = Arc::new(next.unwrap());
        }
        if advance == AuthorityAdvance::Begin {
            let kept = again(&scenario, &scenario.existing(), now());
            assert!(changed(&scenario, &kept).is_empty(), "the old one signs");
        }
    }
    let after = again(&scenario, &scenario.existing(), now());
    assert_eq!(changed(&scenario, &after).len(), 6);
    let count = |text: &str| certificate_count(text).unwrap();
    for leaf in [
        &after.serving,
        &after.kubelet_client,
        &after.front_proxy_client,
    ] {
        assert_eq!(count(&leaf.certificate), 2);
    }
    assert_eq!(count(&after.admin.certificate), 1);
    scenario.leaves = after;
    let kept = again(&scenario, &scenario.existing(), now());
    assert!(changed(&scenario, &kept).is_empty());
    let secret = &scenario.existing()[&Names::of(&scenario.tenant).ca];
    let text = |entry: &str| String::from_utf8(secret[entry].clone()).unwrap();
    assert_eq!(count(&text("ca.crt")), 2);
    assert!(
        text("ca.crt").starts_with(&text("tls.crt")),
        "what signs is first"
    );
    // kube-controller-manager takes one alone.
    assert_eq!(count(&text("tls.crt")), 1);
    let signer = Authority::from_pem(&text("ca.crt"), &text("ca.key")).unwrap();
    assert_eq!(
        signer.key(),
        scenario.keys.certificate_authority.signer().key()
    );
}

/// As people bring one along: what signs, and whose it is.
#[test]
fn of_a_bundle_kube_controller_manager_gets_what_signs_alone() {
    let mut scenario = cluster_ip();
    let root = Authority::generate("root", Duration::days(900), now()).unwrap();
    let authority = Authority::generate("intermediate", Duration::days(90), now()).unwrap();
    let bundle = [authority.certificate(), root.certificate()].concat();
    let authority = Authority::from_pem(&bundle, authority.key().as_pem()).unwrap();
    let authority = RotatingAuthority::born(AuthorityRole::Cluster, authority, 0);
    scenario.keys.certificate_authority = Arc::new(authority);
    let names = Names::of(&scenario.tenant);
    let entry = |secret: &str, entry: &str| {
        String::from_utf8(scenario.existing()[secret][entry].clone()).unwrap()
    };
    let signer = entry(&names.controller_manager_kubeconfig, "ca-signer.crt");
    assert_eq!(certificate_count(&signer).unwrap(), 1);
    assert!(bundle.starts_with(&signer));
    assert_eq!(entry(&names.ca, "ca.crt"), bundle);
}
