use k8s_openapi::api::core::v1::NodeAddress;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

fn sans(texts: &[&str]) -> Vec<SanType> {
    let san = |text: &&str| match text.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName((*text).try_into().unwrap()),
    };
    texts.iter().map(san).collect()
}

fn pem(common_name: &str, organization: &str, hosts: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, organization);
    subject.push(DnType::CommonName, common_name);
    params.subject_alt_names = sans(hosts);
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap();
    request.pem().unwrap().into_bytes()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What the kubelet of `w1` asks, for these names and addresses.
fn asks(hosts: &[&str]) -> KubeletRequest {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    KubeletRequest {
        name: "csr-1".to_owned(),
        created: Some(now() - SignedDuration::from_mins(1)),
        username: "system:node:w1".to_owned(),
        groups: texts(&["system:nodes", "system:authenticated"]),
        usages: texts(&["digital signature", "server auth"]),
        request: pem("system:node:w1", "system:nodes", hosts),
        ..KubeletRequest::default()
    }
}

fn node(name: &str, addresses: &[(&str, &str)]) -> NodeAddresses {
    let address = |(type_, address): &(&str, &str)| NodeAddress {
        type_: (*type_).to_owned(),
        address: (*address).to_owned(),
    };
    NodeAddresses {
        name: name.to_owned(),
        addresses: addresses.iter().map(address).collect(),
    }
}

fn nodes() -> Vec<NodeAddresses> {
    let first = [
        ("Hostname", "W1"),
        ("InternalIP", "10.1.0.1"),
        ("InternalIP", "fd01::1"),
        ("ExternalIP", "203.0.113.1"),
        ("InternalDNS", "w1.rack.example"),
        ("ExternalDNS", "w1.example.com"),
    ];
    let second = [("Hostname", "w2-host"), ("InternalIP", "10.1.0.2")];
    vec![node("w1", &first), node("w2", &second)]
}

fn reserved() -> Reserved {
    let names = ["kubernetes", "kubernetes.default", "tcp.example.com"];
    let addresses = ["203.0.113.9", "192.0.2.9"];
    Reserved {
        names: names.map(str::to_owned).into(),
        addresses: addresses.map(|text| text.parse().unwrap()).into(),
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        cluster_domain: "Cluster.Local".to_owned(),
        networks: [("elsewhere".to_owned(), vec!["10.7.0.0/16".parse().unwrap()])].into(),
    }
}

fn decided(request: &KubeletRequest) -> Decision {
    decide(request, &nodes(), &reserved(), now())
}

#[track_caller]
fn denied(request: &KubeletRequest, says: &str) {
    let decision = decided(request);
    assert!(
        matches!(&decision, Decision::Deny(why) if why.contains(says)),
        "{decision:?}"
    );
}

#[track_caller]
fn waits(decision: &Decision, says: &str) {
    assert!(
        matches!(&decision, Decision::Wait(why) if why.contains(says)),
        "{decision:?}"
    );
}

#[test]
fn a_node_gets_a_certificate_for_its_own_addresses() {
    for hosts in [
        &["w1", "10.1.0.1"][..],
        &["10.1.0.1"],
        &["w1.rack.example"],
        &["w1", "W1.example.com", "10.1.0.1", "fd01::1", "203.0.113.1"],
    ] {
        assert_eq!(decided(&asks(hosts)), Decision::Approve, "{hosts:?}");
    }
    let mut with_rsa = asks(&["w1"]);
    with_rsa.usages.insert(0, "key encipherment".to_owned());
    assert_eq!(decided(&with_rsa), Decision::Approve);
}

#[test]
fn only_nodes_ask_and_for_themselves() {
    for user in ["kubernetes-admin", "system:node:", "system:nodes"] {
        let request = KubeletRequest {
            username: user.to_owned(),
            ..asks(&["w1"])
        };
        denied(&request, "only a node may ask");
    }
    let mut outside = asks(&["w1"]);
    outside.groups = vec!["system:authenticated".to_owned()];
    denied(&outside, "only a node may ask");
    let other = KubeletRequest {
        username: "system:node:w2".to_owned(),
        ..asks(&["w1"])
    };
    denied(&other, "common name");
}

#[test]
fn the_request_has_the_form_that_the_signer_signs() {
    let with = |common_name: &str, organization: &str| KubeletRequest {
        request: pem(common_name, organization, &["w1"]),
        ..asks(&[])
    };
    denied(&with("system:node:w2", "system:nodes"), "common name");
    denied(&with("system:node:w1", "system:masters"), "organization");
    denied(&asks(&[]), "names no address");
    let garbage = KubeletRequest {
        request: b"none".to_vec(),
        ..asks(&["w1"])
    };
    denied(&garbage, "not PEM");
    for usages in [
        &["digital signature", "client auth"][..],
        &["digital signature", "server auth", "client auth"],
        &["server auth"],
        &[],
    ] {
        let mut request = asks(&["w1"]);
        request.usages = usages.iter().map(|usage| (*usage).to_owned()).collect();
        denied(&request, "usages");
    }
}

#[test]
fn what_is_not_in_the_nodes_status_is_refused_once_it_had_time_to_be_there() {
    for host in ["10.1.0.77", "w1.evil.example"] {
        denied(&asks(&["w1", host]), "not among status.addresses");
        let young = KubeletRequest {
            created: Some(now() - SignedDuration::from_secs(1)),
            ..asks(&["w1", host])
        };
        waits(&decided(&young), host);
    }
}

#[test]
fn it_waits_for_the_node_and_its_addresses() {
    let request = asks(&["w1"]);
    waits(
        &decide(&request, &[], &reserved(), now()),
        "there is no Node",
    );
    let bare = [node("w1", &[])];
    waits(
        &decide(&request, &bare, &reserved(), now()),
        "no addresses yet",
    );
}

/// A node writes its own status: there it can say that anything is its own.
#[test]
fn what_is_anothers_is_refused_whatever_the_nodes_status_says() {
    for (host, kind, says) in [
        ("10.1.0.2", "InternalIP", "also the Node \"w2\"'s"),
        ("::ffff:10.1.0.2", "InternalIP", "also the Node \"w2\"'s"),
        ("w2-host", "Hostname", "also the Node \"w2\"'s"),
        ("w2", "Hostname", "also the Node \"w2\"'s"),
        ("203.0.113.9", "ExternalIP", "is the API server's"),
        ("::ffff:192.0.2.9", "InternalIP", "is the API server's"),
        ("tcp.example.com", "ExternalDNS", "is the API server's"),
        ("Kubernetes.default", "Hostname", "is the API server's"),
        ("10.96.0.1", "InternalIP", "belongs to Services"),
        ("10.96.12.34", "InternalIP", "belongs to Services"),
        ("vault.security.svc", "Hostname", "belongs to Services"),
        (
            "x.y.svc.cluster.local",
            "InternalDNS",
            "belongs to Services",
        ),
        ("1-2-3-4.a.pod.cluster.local", "Hostname", "and pods"),
        ("cluster.local", "Hostname", "belongs to Services"),
        ("localhost", "Hostname", "every machine's own"),
        ("a.localhost", "Hostname", "every machine's own"),
        ("*.example.com", "ExternalDNS", "no host's name"),
        ("127.0.0.1", "InternalIP", "no address of one machine"),
        ("::1", "InternalIP", "no address of one machine"),
        ("169.254.169.254", "InternalIP", "no address of one machine"),
        ("fe80::1", "InternalIP", "no address of one machine"),
        ("0.0.0.0", "InternalIP", "no address of one machine"),
        ("224.0.0.1", "InternalIP", "no address of one machine"),
    ] {
        let mut nodes = nodes();
        nodes[0].addresses.push(NodeAddress {
            type_: kind.to_owned(),
            address: host.to_owned(),
        });
        let decision = decide(&asks(&["w1", host]), &nodes, &reserved(), now());
        assert!(
            matches!(&decision, Decision::Deny(why) if why.contains(says)),
            "{host}: {decision:?}"
        );
    }
}

#[test]
fn addresses_of_unknown_kinds_prove_nothing() {
    let nodes = [node("w1", &[("Whatever", "10.1.0.1"), ("Hostname", "w1")])];
    let decision = decide(&asks(&["10.1.0.1"]), &nodes, &reserved(), now());
    assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
}

#[test]
fn a_node_that_is_bound_to_networks_asks_for_an_address_in_them_and_no_name_but_its_own() {
    let bound = Reserved {
        networks: [("w1".to_owned(), vec!["10.1.0.0/16".parse().unwrap()])].into(),
        ..reserved()
    };
    let decided = |hosts: &[&str]| decide(&asks(hosts), &nodes(), &bound, now());
    assert_eq!(decided(&["10.1.0.1", "w1"]), Decision::Approve);
    assert_eq!(decided(&["10.1.0.1"]), Decision::Approve);
    for (hosts, why) in [
        (&["10.1.0.1", "203.0.113.1"][..], "is in no network"),
        (&["w1"], "it names no address"),
        (&["10.1.0.1", "w1.rack.example"], "is not the node's name"),
    ] {
        let Decision::Deny(said) = decided(hosts) else {
            panic!("{hosts:?}");
        };
        assert!(said.contains(why), "{hosts:?}: {said}");
        // Of others nothing is asked.
        let free = decide(&asks(hosts), &nodes(), &reserved(), now());
        assert_eq!(free, Decision::Approve, "{hosts:?}");
    }
}
