use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn made<K: serde::de::DeserializeOwned>(object: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(object).unwrap())
}

fn node(created: &str, cidrs: &[&str], address: &str) -> Arc<Node> {
    made(json!({
        "metadata": { "name": "n", "creationTimestamp": created },
        "spec": { "podCIDRs": cidrs },
        "status": { "addresses": [
            { "type": "InternalIP", "address": address },
            { "type": "Hostname", "address": "n" },
        ]},
    }))
}

fn old_node(cidrs: &[&str], address: &str) -> Arc<Node> {
    node("2025-01-01T00:00:00Z", cidrs, address)
}

fn text(networks: &Networks) -> Vec<String> {
    networks.closed.iter().map(ToString::to_string).collect()
}

fn slice() -> Arc<EndpointSlice> {
    made(json!({
        "metadata": { "name": "kubernetes" }, "addressType": "IPv4",
        "endpoints": [{ "addresses": ["172.16.0.2"] }, { "addresses": ["172.16.0.3"] }],
    }))
}

#[test]
fn the_hosts_of_every_pool_are_closed() {
    let pools = |hosts: &[&str]| Sources {
        nodes: vec![old_node(&["10.100.0.0/24"], "192.0.2.1")],
        pools: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        ..Sources::default()
    };
    let found = |hosts: &[&str]| text(&Networks::found(&pools(hosts), now()));
    let management = ["10.100.0.0/24", "192.0.2.1/32"];
    assert_eq!(found(&["192.0.2.1", "10.100.0.7"]), management);
    assert_eq!(
        found(&["198.51.100.7", "2001:db8::7"]),
        [&management[..], &["198.51.100.7/32", "2001:db8::7/128"]].concat()
    );
}

#[test]
fn nodes_pods_services_and_the_api_server_are_all_covered() {
    let sources = Sources {
        nodes: vec![
            old_node(&["10.100.0.0/24", "fd00:1::/64"], "192.0.2.1"),
            old_node(&["10.100.1.0/24"], "192.0.2.4"),
        ],
        service_cidrs: vec![made(
            json!({ "metadata": {}, "spec": { "cidrs": ["10.112.0.0/16"] } }),
        )],
        api_server: vec![slice()],
        ..Sources::default()
    };
    let networks = Networks::found(&sources, now());
    let expected = [
        "10.100.0.0/23",
        "10.112.0.0/16",
        "172.16.0.2/31",
        "192.0.2.1/32",
        "192.0.2.4/32",
        "fd00:1::/64",
    ];
    assert_eq!(text(&networks), expected);
    assert_eq!(networks.unnamed, None);
    for (ip, covered) in [
        ("10.99.255.255", false),
        ("10.100.0.0", true),
        ("10.100.1.255", true),
        ("10.100.2.0", false),
        ("172.16.0.3", true),
        ("192.0.2.2", false),
        ("192.0.2.4", true),
        ("fd00:1::9", true),
        ("fd00:2::", false),
        ("::", false),
    ] {
        assert_eq!(networks.covers(ip.parse().unwrap()), covered, "{ip}");
    }
}

#[test]
fn the_api_servers_addresses_are_added_to_given_networks_and_nothing_else_is_asked() {
    let sources = Sources {
        given: &["10.0.0.0/8".parse().unwrap()],
        api_server: vec![slice()],
        operator: &["192.0.2.9".parse().unwrap()],
        ..Sources::default()
    };
    let networks = Networks::found(&sources, now());
    assert_eq!(text(&networks), ["10.0.0.0/8", "172.16.0.2/31"]);
    assert_eq!(networks.unnamed, None);
}

#[test]
fn a_pod_of_either_family_in_no_named_network_is_noticed() {
    let unnamed = |operator: &[&str], pods: &[(&str, &str)]| {
        let ip = |text: &&str| text.parse::<IpAddr>().unwrap();
        let operator: Vec<_> = operator.iter().map(ip).collect();
        let pods = pods.iter().map(|(name, text)| (name.to_string(), ip(text)));
        let sources = Sources {
            nodes: vec![old_node(&["10.100.0.0/24"], "192.0.2.1")],
            operator: &operator,
            pods: pods.collect(),
            ..Sources::default()
        };
        Networks::found(&sources, now()).unnamed
    };
    assert_eq!(unnamed(&[], &[]), None);
    assert_eq!(unnamed(&["10.100.0.9"], &[("a/p", "10.100.0.7")]), None);
    assert_eq!(unnamed(&["192.0.2.1"], &[]), None, "the host's network");
    let elsewhere = unnamed(&["10.100.0.9", "fd00::9"], &[]).unwrap();
    assert!(elsewhere.contains("operator's own pod has the address fd00::9"));
    let elsewhere = unnamed(
        &["10.100.0.9"],
        &[("b/q", "10.100.0.7"), ("a/p", "10.9.0.7")],
    );
    assert!(
        elsewhere
            .unwrap()
            .contains("pod a/p has the address 10.9.0.7")
    );
}

#[test]
fn a_young_node_may_yet_name_its_networks() {
    for (created, nameless, left) in [
        ("2026-01-01T12:00:00Z", false, Some(60)),
        ("2026-01-01T11:59:10Z", false, Some(10)),
        ("2026-01-01T11:59:00Z", true, None),
        ("2026-01-01T11:00:00Z", true, None),
        // Clocks differ.
        ("2026-01-01T12:00:30Z", false, Some(30)),
        ("2026-01-01T13:00:00Z", true, None),
    ] {
        let sources = Sources {
            nodes: vec![
                node(created, &[], "192.0.2.1"),
                old_node(&["10.0.0.0/24"], "192.0.2.2"),
            ],
            ..Sources::default()
        };
        let networks = Networks::found(&sources, now());
        let reason = nameless.then(|| "Node n does not name its pod networks".to_owned());
        assert_eq!(networks.unnamed, reason, "{created}");
        let left = left.map(Duration::from_secs);
        assert_eq!(sources.grace_left(now()), left, "{created}");
        assert!(networks.covers("192.0.2.1".parse().unwrap()));
    }
}

#[test]
fn a_virtual_node_stops_no_birth() {
    let mut stray = Node::clone(&old_node(&[], "192.0.2.1"));
    let nameless = |node: &Node| {
        let sources = Sources {
            nodes: vec![Arc::new(node.clone())],
            ..Sources::default()
        };
        let networks = Networks::found(&sources, now());
        assert!(networks.covers("192.0.2.1".parse().unwrap()));
        networks.unnamed.is_some()
    };
    assert!(nameless(&stray));
    stray.metadata.labels = Some([("type".to_owned(), "virtual-kubelet".to_owned())].into());
    assert!(!nameless(&stray));
}
