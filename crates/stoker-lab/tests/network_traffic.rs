//! Compiled policies against real packets, in network namespaces that the tests make. Needs root, the
//! kernel module `br_netfilter`, and the programs ip and nft.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may"
)]

#[path = "network/hosts.rs"]
mod hosts;
#[path = "network/objects.rs"]
mod objects;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use hosts::Host;
use objects::Objects;

const PODS: &str = "
kind: Namespace
metadata: { name: a, labels: { team: red } }
---
kind: Namespace
metadata: { name: b, labels: { team: blue } }
---
kind: Pod
metadata: { namespace: a, name: web, labels: { app: web } }
spec: { nodeName: here, containers: [{ name: web, ports: [{ name: http, containerPort: 80 }] }] }
status: { podIPs: [{ ip: 10.1.0.1 }, { ip: 'fd00::1' }] }
---
kind: Pod
metadata: { namespace: a, name: client, labels: { app: client } }
spec: { nodeName: here, containers: [] }
status: { podIPs: [{ ip: 10.1.0.2 }, { ip: 'fd00::2' }] }
---
kind: Pod
metadata: { namespace: b, name: client, labels: { app: client } }
spec: { nodeName: here, containers: [] }
status: { podIPs: [{ ip: 10.1.0.3 }, { ip: 'fd00::3' }] }
";

/// A node with a bridge and three pods on it, and a machine outside that is routed to.
struct World {
    node: Host,
    web: Host,
    red_client: Host,
    blue_client: Host,
    outside: Host,
}

const NODE: &str = "192.0.2.1:2379";
const OUTSIDE: &str = "192.0.2.2:80";
const WEB: &str = "10.1.0.1:80";
const WEB_OTHER_PORT: &str = "10.1.0.1:81";
/// Index 2 is `eth0`, the first interface after `lo` in each pod.
const WEB_LINK_LOCAL: &str = "[fe80::1%2]:80";
const NODE_LINK_LOCAL: &str = "[fe80::fe%2]:2380";
/// Services as kube-proxy makes them: of the pod `web`, and of the node's own port.
const WEB_SERVICE: &str = "10.96.0.10:8080";
const NODE_SERVICE: &str = "10.96.0.1:443";

impl World {
    fn new() -> Self {
        let node = Host::new();
        for (name, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("bridge/bridge-nf-call-iptables", "1"),
            ("bridge/bridge-nf-call-ip6tables", "1"),
        ] {
            node.sysctl(name, value);
        }
        node.ip("link add cni0 type bridge");
        node.ip("address add 10.1.0.254/24 dev cni0");
        node.ip("address add fd00::fe/64 dev cni0 nodad");
        node.ip("address add fe80::fe/64 dev cni0 nodad");
        node.ip("link set cni0 up");
        let [web, red_client, blue_client] = [1, 2, 3].map(|number| {
            let pod = attach(&node, &format!("pod{number}"));
            node.ip(&format!("link set pod{number} master cni0"));
            // As the CNI plugin's hairpinMode: a Service leads a pod to itself.
            node.ip(&format!(
                "link set pod{number} type bridge_slave hairpin on"
            ));
            pod.ip(&format!("address add 10.1.0.{number}/24 dev eth0"));
            pod.ip(&format!("address add fd00::{number}/64 dev eth0 nodad"));
            pod.ip(&format!("address add fe80::{number}/64 dev eth0 nodad"));
            pod.ip("route add default via 10.1.0.254");
            pod
        });
        let outside = attach(&node, "uplink");
        node.ip("address add 192.0.2.1/24 dev uplink");
        outside.ip("address add 192.0.2.2/24 dev eth0");
        outside.ip("route add default via 192.0.2.1");

        for address in ["0.0.0.0:80", "0.0.0.0:81", "[fd00::1]:80", WEB_LINK_LOCAL] {
            web.listen(address);
        }
        web.echo("0.0.0.0:53");
        red_client.listen("0.0.0.0:80");
        outside.listen("0.0.0.0:80");
        node.listen("0.0.0.0:2379");
        node.listen("[::]:2380");
        node.nft(&[], SERVICES).unwrap();
        Self {
            node,
            web,
            red_client,
            blue_client,
            outside,
        }
    }

    fn apply(&self, policies: &str) {
        let mut objects = Objects::parse(PODS);
        objects.policies = Objects::parse(policies).policies;
        self.node.nft(&[], objects.compile().script()).unwrap();
    }
}

const SERVICES: &str = "
table ip services {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 10.96.0.10 tcp dport 8080 dnat to 10.1.0.1:80
        ip daddr 10.96.0.1 tcp dport 443 dnat to 192.0.2.1:2379
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.1.0.1 ip daddr 10.1.0.1 masquerade
    }
}";

fn attach(node: &Host, name: &str) -> Host {
    let host = Host::new();
    node.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}",
        host.path()
    ));
    node.ip(&format!("link set {name} up"));
    host.ip("link set eth0 up");
    host
}

#[test]
fn without_policies_everything_is_reached() {
    let world = World::new();
    world.apply("");
    for address in [
        WEB,
        WEB_OTHER_PORT,
        WEB_SERVICE,
        NODE,
        NODE_SERVICE,
        OUTSIDE,
        "[fd00::1]:80",
    ] {
        assert!(world.red_client.reaches(address), "{address}");
    }
    assert!(world.red_client.reaches("[fd00::fe]:2380"));
    assert!(world.red_client.reaches(WEB_LINK_LOCAL));
    assert!(world.red_client.reaches(NODE_LINK_LOCAL));
    assert!(world.red_client.reaches_udp("10.1.0.1:53"));
    assert!(world.blue_client.reaches(WEB));
    assert!(world.outside.reaches(WEB));
    assert!(
        world.web.reaches(WEB_SERVICE),
        "a pod reaches itself through its Service"
    );
}

#[test]
fn denied_ingress_stops_all_but_the_node_and_the_pod_itself() {
    let world = World::new();
    world.apply(
        "
kind: NetworkPolicy
metadata: { namespace: a, name: deny }
spec: { podSelector: { matchLabels: { app: web } } }
",
    );
    for address in [WEB, WEB_SERVICE, "[fd00::1]:80"] {
        assert!(!world.red_client.reaches(address), "{address}");
    }
    assert!(!world.red_client.reaches(WEB_LINK_LOCAL));
    assert!(!world.red_client.reaches_udp("10.1.0.1:53"));
    assert!(!world.outside.reaches(WEB));
    assert!(world.node.reaches(WEB), "the kubelet's probes");
    assert!(world.node.reaches("[fd00::1]:80"));
    assert!(
        world.web.reaches(WEB_SERVICE),
        "a pod reaches itself through its Service"
    );
    assert!(
        world.web.reaches("10.1.0.2:80"),
        "egress of the isolated pod stays open"
    );
    assert!(world.web.reaches(OUTSIDE));
    assert!(
        world.blue_client.reaches("10.1.0.2:80"),
        "other pods are not isolated"
    );
}

#[test]
fn denied_egress_stops_pods_outside_and_the_nodes_own_ports() {
    let world = World::new();
    world.apply(
        "
kind: NetworkPolicy
metadata: { namespace: a, name: deny }
spec: { podSelector: { matchLabels: { app: client } }, policyTypes: [Egress] }
",
    );
    let client = &world.red_client;
    for address in [
        WEB,
        WEB_SERVICE,
        OUTSIDE,
        NODE,
        NODE_SERVICE,
        "10.1.0.254:2379",
        "[fd00::1]:80",
        "[fd00::fe]:2380",
    ] {
        assert!(!client.reaches(address), "{address}");
    }
    assert!(!client.reaches(WEB_LINK_LOCAL));
    assert!(!client.reaches(NODE_LINK_LOCAL));
    assert!(
        client.reaches("10.1.0.2:80"),
        "a pod cannot be kept from itself"
    );
    assert!(
        world.web.reaches("10.1.0.2:80"),
        "ingress of the isolated pod stays open"
    );
    assert!(
        world.blue_client.reaches(WEB),
        "the same labels in another namespace"
    );
}

#[test]
fn peers_and_ports_open_exactly_what_they_name() {
    let world = World::new();
    world.apply(
        "
kind: NetworkPolicy
metadata: { namespace: a, name: web }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
    - from: [{ namespaceSelector: { matchLabels: { team: blue } } }]
      ports: [{ port: http }, { port: 53, protocol: UDP }]
    - from: [{ ipBlock: { cidr: 192.0.2.0/24 } }]
      ports: [{ port: 81, endPort: 90 }]
",
    );
    assert!(world.blue_client.reaches(WEB));
    assert!(
        world.blue_client.reaches(WEB_SERVICE),
        "the real address behind a Service counts"
    );
    assert!(world.blue_client.reaches("[fd00::1]:80"));
    assert!(world.blue_client.reaches_udp("10.1.0.1:53"));
    assert!(!world.blue_client.reaches(WEB_OTHER_PORT));
    assert!(!world.red_client.reaches(WEB));
    assert!(!world.red_client.reaches_udp("10.1.0.1:53"));
    assert!(world.outside.reaches(WEB_OTHER_PORT));
    assert!(!world.outside.reaches(WEB));
}

#[test]
fn both_ends_of_a_connection_must_allow_it() {
    let world = World::new();
    let egress = "
kind: NetworkPolicy
metadata: { namespace: b, name: egress }
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to: [{ namespaceSelector: { matchLabels: { team: red } }, podSelector: { matchLabels: { app: web } } }]
      ports: [{ port: http }]
    - to: [{ ipBlock: { cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.1/32] } }]
";
    let ingress = "
---
kind: NetworkPolicy
metadata: { namespace: a, name: ingress }
spec: { podSelector: {}, ingress: [{ ports: [{ port: 81 }] }] }
";
    world.apply(egress);
    let client = &world.blue_client;
    assert!(client.reaches(WEB));
    assert!(client.reaches(OUTSIDE));
    for address in [WEB_OTHER_PORT, "10.1.0.2:80", NODE, NODE_SERVICE] {
        assert!(!client.reaches(address), "{address}");
    }
    world.apply(&format!("{egress}{ingress}"));
    assert!(
        !client.reaches(WEB),
        "allowed by the source, not by the destination"
    );
    assert!(
        !client.reaches(WEB_OTHER_PORT),
        "allowed by the destination, not by the source"
    );
    assert!(client.reaches(OUTSIDE));
}

#[test]
fn open_connections_survive_a_new_policy_and_rules_go_away_with_it() {
    let world = World::new();
    let deny = "
kind: NetworkPolicy
metadata: { namespace: a, name: deny }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }
";
    let listener = world
        .node
        .enter(|| std::net::TcpListener::bind("0.0.0.0:9000"))
        .unwrap();
    let mut stream = world.web.connect("192.0.2.1:9000").unwrap();
    let (mut served, _) = listener.accept().unwrap();
    world.apply(deny);
    assert!(!world.web.reaches("192.0.2.1:9000"));
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    stream.write_all(b"?").unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    served.write_all(b"!").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();

    world.apply("");
    assert!(world.web.reaches("192.0.2.1:9000"));
    assert!(world.red_client.reaches(WEB));
}

#[test]
fn nft_accepts_every_golden_file() {
    let host = Host::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/network_policy");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "nft") {
            let script = std::fs::read_to_string(&path).unwrap();
            host.nft(&["--check"], &script)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} golden files");
}
