use std::collections::BTreeSet;

use super::*;

#[test]
fn an_argument_is_read_with_its_name_folded_and_its_value_as_given() {
    let read = |text| {
        Argument::parse(Component::ApiServer, text)
            .unwrap()
            .to_string()
    };
    assert_eq!(read("--event_ttl=2h"), "--event-ttl=2h");
    assert_eq!(read("-v=4"), "-v=4");
    assert_eq!(
        read("--service-account-issuer=https://a_b=c"),
        "--service-account-issuer=https://a_b=c"
    );
}

/// An argument without a value would swallow the next one; one that is no argument would hide.
#[test]
fn other_text_is_no_argument() {
    for text in [
        "",
        "--",
        "--event-ttl",
        "--event-ttl 2h",
        "event-ttl=2h",
        "-event-ttl=2h",
        "--=x",
        " --event-ttl=2h",
        "--Event-TTL=2h",
        "--event-ttl\n=2h",
        "-x=1",
        "---v=1",
    ] {
        assert_eq!(
            Argument::parse(Component::ApiServer, text),
            Err(RefusedArgument::Form(text.to_owned()))
        );
    }
}

#[test]
fn what_is_not_listed_is_refused_with_the_reason() {
    let refused = |component, text| Argument::parse(component, text).unwrap_err().to_string();
    assert_eq!(
        refused(Component::ApiServer, "--etcd_servers=https://other:2379"),
        "--etcd-servers: Stoker keeps the tenant to its own encrypted place in the pool"
    );
    assert!(refused(Component::Scheduler, "--event-ttl=1h").contains("knows to be safe"));
    assert!(refused(Component::ControllerManager, "--leader_elect=false").contains("must lead"));
}

#[test]
fn values_that_undo_protection_are_refused() {
    for text in [
        "--feature-gates=A=true,UnknownVersionInteroperabilityProxy=true",
        "--feature_gates=AllAlpha=true",
        "--disable_admission-plugins=ServiceAccount,NodeRestriction",
        "--disable-admission-plugins=CertificateSubjectRestriction",
    ] {
        let parsed = Argument::parse(Component::ApiServer, text);
        assert_eq!(parsed, Err(RefusedArgument::Fixed), "{text}");
    }
}

#[test]
fn no_argument_is_both_allowed_and_refused_and_none_is_listed_twice() {
    for component in Component::ALL {
        let mut seen = BTreeSet::new();
        let refused = component.refused().flat_map(|(names, _)| *names).copied();
        for name in component.allowed().chain(refused) {
            assert!(seen.insert(name), "{component:?} {name}");
        }
    }
}
