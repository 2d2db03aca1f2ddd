//! What comes next of a change, what it makes of the authorities, and what of it is kept.

use serde_json::json;
use stoker_api::v1alpha1::CertificateAuthority;

use super::*;
use crate::encryption::Servers;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn wanted(generation: i64) -> CertificateAuthority {
    serde_json::from_value(json!({ "generation": generation, "formerTrustSeconds": 60 })).unwrap()
}

fn at(seconds: i64) -> OffsetDateTime {
    NOW + Duration::seconds(seconds)
}

fn seen(servers: Servers, nodes_behind: Option<usize>) -> AuthorityObserved {
    AuthorityObserved {
        servers,
        nodes_behind,
    }
}

const FOLLOWED: AuthorityObserved = AuthorityObserved {
    servers: Servers::Current,
    nodes_behind: Some(0),
};

fn first(generation: i64) -> RotatingAuthority {
    RotatingAuthority::generate(AuthorityRole::Cluster, generation, NOW).unwrap()
}

/// The same after it was written and read again.
fn kept(authority: &RotatingAuthority) -> RotatingAuthority {
    let key = authority.signer().key().as_pem();
    let record = authority.record().expect("one that has changed");
    let read = RotatingAuthority::read(AuthorityRole::Cluster, &record, key)
        .unwrap()
        .unwrap();
    assert_eq!(read.state, authority.state);
    assert_eq!(read.trusted(), authority.trusted());
    read
}

fn step(authority: &RotatingAuthority, advance: AuthorityAdvance) -> RotatingAuthority {
    let next = authority.after(advance, &wanted(1), NOW).unwrap().unwrap();
    assert!(next.follows(authority), "{advance:?}");
    kept(&next)
}

fn pins(authority: &RotatingAuthority) -> Vec<String> {
    let text = authority.trusted();
    let parts = text.split_inclusive("-----END CERTIFICATE-----\n");
    parts
        .map(|part| stoker_pki::ca_hash(part).unwrap())
        .collect()
}

#[test]
fn the_new_one_is_believed_before_it_signs_and_the_old_one_until_all_have_followed() {
    let born = first(0);
    assert!(born.record().is_none());
    assert_eq!(born.next(&wanted(0), FOLLOWED, NOW), AuthorityStep::Rest);
    let [old] = pins(&born).try_into().unwrap();

    let begin = |servers| born.next(&wanted(1), seen(servers, None), NOW);
    // Pods of an operator before may read but one certificate.
    assert_eq!(begin(Servers::None), AuthorityStep::AwaitServers);
    assert_eq!(begin(Servers::Behind), AuthorityStep::AwaitRollout);
    let advance = AuthorityStep::Advance(AuthorityAdvance::Begin);
    assert_eq!(begin(Servers::Current), advance);
    let distributing = step(&born, AuthorityAdvance::Begin);
    let [first, new] = pins(&distributing).try_into().unwrap();
    assert_eq!(first, old, "the old one still signs");
    assert_eq!(distributing.signer().key(), born.signer().key());

    let next = |servers| distributing.next(&wanted(1), seen(servers, Some(0)), NOW);
    assert_eq!(next(Servers::None), AuthorityStep::AwaitServers);
    assert_eq!(next(Servers::Behind), AuthorityStep::AwaitRollout);
    let sign = AuthorityStep::Advance(AuthorityAdvance::Sign);
    assert_eq!(next(Servers::Current), sign);
    let signing = step(&distributing, AuthorityAdvance::Sign);
    assert_eq!(pins(&signing), [new.clone(), old]);
    assert_ne!(signing.signer().key(), born.signer().key());

    let next = |servers, nodes, now| signing.next(&wanted(1), seen(servers, nodes), now);
    let current = |nodes, seconds| next(Servers::Current, nodes, at(seconds));
    assert_eq!(
        next(Servers::Behind, Some(0), at(99)),
        AuthorityStep::AwaitRollout
    );
    assert_eq!(
        next(Servers::None, Some(0), at(99)),
        AuthorityStep::AwaitServers
    );
    assert_eq!(current(None, 99), AuthorityStep::AwaitNodes);
    assert_eq!(current(Some(1), 99), AuthorityStep::AwaitNodes);
    assert_eq!(current(Some(0), 59), AuthorityStep::AwaitTime(at(60)));
    let leave = AuthorityStep::Advance(AuthorityAdvance::Leave);
    assert_eq!(current(Some(0), 60), leave);
    // Once it has signed, it stays.
    let back = signing.next(&wanted(0), seen(Servers::Current, Some(0)), at(60));
    assert_eq!(back, leave);

    let after = step(&signing, AuthorityAdvance::Leave);
    assert_eq!(pins(&after), [new]);
    assert_eq!(after.next(&wanted(1), FOLLOWED, NOW), AuthorityStep::Rest);
    // Who knows the old one alone goes on believing it.
    assert_eq!(after.linked("leaf", NOW), signing.linked("leaf", NOW));
    assert_ne!(after.linked("leaf", NOW), "leaf");
    let over = NOW + LIFETIME;
    assert_eq!(after.linked("leaf", over), "leaf", "its end has come");
}

#[test]
fn what_has_signed_nothing_is_taken_back() {
    let born = first(0);
    let distributing = step(&born, AuthorityAdvance::Begin);
    let cancel = distributing.next(&wanted(0), FOLLOWED, NOW);
    assert_eq!(cancel, AuthorityStep::Advance(AuthorityAdvance::Cancel));
    let back = step(&distributing, AuthorityAdvance::Cancel);
    assert_eq!(pins(&back), pins(&born));
    assert_eq!(back.next(&wanted(0), FOLLOWED, NOW), AuthorityStep::Rest);
}

#[test]
fn nothing_but_the_next_step_is_made_or_followed() {
    use AuthorityAdvance::{Begin, Cancel, Leave, Sign};
    let born = first(0);
    let distributing = step(&born, Begin);
    let signing = step(&distributing, Sign);
    let possible = |authority: &RotatingAuthority| {
        let all = [Begin, Cancel, Sign, Leave];
        let made = |advance| authority.after(advance, &wanted(1), NOW).unwrap();
        all.into_iter()
            .filter(|advance| made(*advance).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(possible(&born), [Begin]);
    assert_eq!(possible(&distributing), [Cancel, Sign]);
    assert_eq!(possible(&signing), [Leave]);
    assert!(!signing.follows(&born), "two steps");
    assert!(!born.follows(&distributing), "a step back");
    let stranger = step(&first(0), Begin);
    assert!(!signing.follows(&stranger), "of others");
}

#[test]
fn one_that_is_made_for_a_generation_rests_in_it() {
    let born = first(7);
    let read = kept(&born);
    assert!(!read.was_changed());
    for generation in [7, 0] {
        let next = read.next(&wanted(generation), FOLLOWED, NOW);
        assert_eq!(next, AuthorityStep::Rest, "only a higher one makes another");
    }
    assert_ne!(read.next(&wanted(8), FOLLOWED, NOW), AuthorityStep::Rest);
}

#[test]
fn a_record_shows_no_key_and_a_damaged_one_is_refused() {
    let distributing = step(&first(0), AuthorityAdvance::Begin);
    let shown = format!("{distributing:?}{}", distributing.describe());
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    let record = distributing.record().unwrap();
    let key = distributing.signer().key().as_pem();
    for damaged in [
        "",
        "{}",
        &record.replace("BEGIN CERTIFICATE", "BEGIN"),
        &record.replace("phase", "fase"),
    ] {
        assert!(
            !matches!(
                RotatingAuthority::read(AuthorityRole::Cluster, damaged, key),
                Ok(Ok(_))
            ),
            "{damaged}"
        );
    }
}

/// Through all of it.
fn replaced(before: &RotatingAuthority, generation: i64) -> RotatingAuthority {
    use AuthorityAdvance::{Begin, Leave, Sign};
    let mut authority = RotatingAuthority {
        role: before.role,
        signer: Authority::from_pem(before.signer.certificate(), before.signer.key().as_pem())
            .unwrap(),
        state: before.state.clone(),
    };
    for advance in [Begin, Sign, Leave] {
        let next = authority.after(advance, &wanted(generation), NOW).unwrap();
        authority = kept(&next.unwrap());
    }
    authority
}

#[test]
fn who_knows_the_one_before_the_last_alone_is_led_to_the_present_one() {
    let first = first(0);
    let third = replaced(&replaced(&first, 1), 2);
    let sent = third.linked("", NOW);
    let links: Vec<_> = sent
        .split_inclusive("-----END CERTIFICATE-----\n")
        .collect();
    let [to_third, to_second] = links.try_into().unwrap();
    assert!(is_signed_by(to_second, first.signer.certificate()));
    // The second one's key, of which the first one says whose it is.
    assert!(is_signed_by(to_third, to_second));
    assert!(
        is_signed_by(third.signer.certificate(), to_third),
        "its own key"
    );
}

#[test]
fn what_became_of_an_authority_is_told_from_one_of_others_or_of_before() {
    let first = first(0);
    let second = replaced(&first, 1);
    let third = replaced(&second, 2);
    assert!(third.descends_from(&second) && third.descends_from(&first));
    assert!(!first.descends_from(&third) && !second.descends_from(&third));
    assert!(!first.descends_from(&first), "the same");
    let stranger = super::tests::first(0);
    assert!(!third.descends_from(&stranger));
    assert!(!replaced(&stranger, 1).descends_from(&first));
}

/// An intermediate authority that may sign leaves alone.
#[test]
fn an_authority_that_may_not_vouch_stays() {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let theirs = Authority::from_pem(&certificate, &key.serialize_pem()).unwrap();
    let theirs = RotatingAuthority::born(AuthorityRole::Cluster, theirs, 0);
    assert_eq!(
        theirs.next(&wanted(1), FOLLOWED, NOW),
        AuthorityStep::Refuse
    );
}
