//! `NetworkPolicy` objects as nftables rules.
//!
//! Every packet that starts a connection passes, in the hooks forward and input:
//!
//! ```text
//! source is an isolated pod? ─► pod/…/egress ─► policy/…/egress of each policy ─► else drop
//!            │ no                                        │ a rule matches
//!            ▼                                           ▼
//!          chain `ingress` ◄─────────────────────────────┘
//! destination is an isolated pod? ─► pod/…/ingress ─► policy/…/ingress … ─► else drop
//!            │ no                                        │ a rule matches
//!            ▼                                           ▼
//!          accept                                      accept
//! ```
//!
//! Input is filtered too, since packets to the host's own ports, also those that kube-proxy translated
//! from a Service, never pass forward. Packets that the host itself sends pass only output, which has
//! no rules: the kubelet's probes always arrive.

use std::borrow::Borrow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::direction::Direction;
use super::facts::{NamespaceLabels, PodFacts};
use super::matches::{self, Block, End, Match, Ports};
use super::nft;

/// The nft table, of family inet, that holds the compiled policies.
pub(super) const TABLE: &str = "stoker_lab_network_policy";

/// Longest part of a chain's name taken from Kubernetes names (nft allows 255 bytes in all).
const LONGEST_NAME: usize = 200;

/// A script for `nft -f` that puts exactly these rules in place of the former ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    script: String,
    isolated: usize,
}

impl Ruleset {
    /// How many pods are isolated in at least one direction.
    #[must_use]
    pub fn isolated(&self) -> usize {
        self.isolated
    }

    /// The script.
    #[must_use]
    pub fn script(&self) -> &str {
        &self.script
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.script)
    }
}

/// Compiles the rules of one host: equal inputs give equal text, in whatever order they come.
///
/// Local pods are isolated; all pods of the cluster count as peers. Objects that the API server would
/// not have accepted (a malformed CIDR or selector) allow nothing. `pod_interface` is the bridge of
/// the pods.
#[must_use]
pub fn compile<P: Borrow<NetworkPolicy>>(
    pods: &[PodFacts],
    namespaces: &NamespaceLabels,
    policies: &[P],
    pod_interface: &str,
) -> Ruleset {
    let cluster = Cluster { pods, namespaces };
    let mut policies: Vec<&NetworkPolicy> = policies.iter().map(Borrow::borrow).collect();
    policies.sort_by_key(|policy| (policy.namespace(), policy.name_any()));

    let mut chains = String::new();
    let mut applied: BTreeMap<(usize, Direction), Vec<String>> = BTreeMap::new();
    for policy in policies {
        let Some(spec) = &policy.spec else { continue };
        let namespace = policy.namespace().unwrap_or_default();
        let subjects = cluster.subjects(&namespace, spec.pod_selector.as_ref());
        if subjects.is_empty() {
            continue;
        }
        for direction in Direction::BOTH
            .into_iter()
            .filter(|way| way.is_restricted_by(spec))
        {
            let chain = chain_name("policy", &namespace, &policy.name_any(), direction);
            let lines = cluster.policy_lines(direction, &namespace, spec, &subjects);
            write_chain(&mut chains, &chain, &lines);
            for &subject in &subjects {
                applied
                    .entry((subject, direction))
                    .or_default()
                    .push(chain.clone());
            }
        }
    }
    let isolated: BTreeSet<usize> = applied.keys().map(|(pod, _)| *pod).collect();
    let script = cluster.script(&applied, &chains, pod_interface);
    Ruleset {
        script,
        isolated: isolated.len(),
    }
}

struct Cluster<'a> {
    pods: &'a [PodFacts],
    namespaces: &'a NamespaceLabels,
}

impl Cluster<'_> {
    /// Indices of the pods that a policy isolates on this host.
    fn subjects(&self, namespace: &str, selector: Option<&LabelSelector>) -> Vec<usize> {
        let selector = Selection::read(selector);
        let pods = self.pods.iter().enumerate();
        pods.filter(|(_, pod)| pod.local && pod.namespace == namespace)
            .filter(|(_, pod)| selector.selects(&pod.labels))
            .map(|(index, _)| index)
            .collect()
    }

    fn policy_lines(
        &self,
        direction: Direction,
        namespace: &str,
        spec: &NetworkPolicySpec,
        subjects: &[usize],
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (peers, ports) in direction.rules(spec) {
            let peers = self.peers(namespace, peers);
            let ports = Ports::read(ports);
            let from = peers.matches(direction.peer_end());
            let mut found: Vec<Match> = from
                .iter()
                .flat_map(|peer| ports.numbers().iter().filter_map(|port| peer.and(port)))
                .collect();
            for (protocol, name) in ports.named() {
                found.extend(match direction {
                    Direction::Ingress => {
                        let pods = subjects.iter().map(|&subject| &self.pods[subject]);
                        both(&from, &named_port(protocol, name, pods, |_| true))
                    }
                    Direction::Egress => named_port(protocol, name, self.pods.iter(), |address| {
                        peers.contains(address)
                    }),
                });
            }
            lines.extend(
                found
                    .iter()
                    .map(|found| format!("{}{}", found.text(), direction.allow())),
            );
        }
        lines
    }

    fn peers(&self, namespace: &str, peers: &[NetworkPolicyPeer]) -> Peers {
        if peers.is_empty() {
            return Peers::Everyone;
        }
        let blocks = peers
            .iter()
            .filter_map(|peer| peer.ip_block.as_ref())
            .filter_map(Block::read);
        let selected = peers
            .iter()
            .filter(|peer| peer.ip_block.is_none())
            .flat_map(|peer| {
                self.pods
                    .iter()
                    .filter(|pod| self.is_peer(namespace, peer, pod))
            })
            .flat_map(|pod| pod.addresses.iter().copied());
        Peers::Only {
            blocks: blocks.collect(),
            addresses: selected.collect(),
        }
    }

    fn is_peer(&self, namespace: &str, peer: &NetworkPolicyPeer, pod: &PodFacts) -> bool {
        let in_namespace = match (&peer.namespace_selector, &peer.pod_selector) {
            (None, None) => false,
            (None, Some(_)) => pod.namespace == namespace,
            (Some(selector), _) => {
                let labels = self.namespaces.get(&pod.namespace);
                labels.is_some_and(|labels| Selection::read(Some(selector)).selects(labels))
            }
        };
        in_namespace && Selection::read(peer.pod_selector.as_ref()).selects(&pod.labels)
    }

    fn script(
        &self,
        applied: &BTreeMap<(usize, Direction), Vec<String>>,
        policy_chains: &str,
        pod_interface: &str,
    ) -> String {
        let mut text = nft::replace_prefix(TABLE);
        let _ = writeln!(text, "table inet {TABLE} {{");
        text += policy_chains;
        for ((pod, direction), chains) in applied {
            write_pod_chain(&mut text, &self.pods[*pod], *direction, chains);
        }
        let mut ingress = self.dispatch(applied, Direction::Ingress);
        ingress.push("accept".into());
        write_chain(&mut text, "ingress", &ingress);
        if !applied.is_empty() {
            let egress = self.dispatch(applied, Direction::Egress);
            for hook in ["forward", "input"] {
                let mut lines = vec![format!(
                    "type filter hook {hook} priority filter - 5; policy accept;"
                )];
                lines.extend(preamble(pod_interface));
                lines.extend(egress.iter().cloned());
                lines.push("goto ingress".into());
                write_chain(&mut text, hook, &lines);
            }
        }
        text += "}\n";
        text
    }

    /// Verdict maps from the addresses of isolated pods to their chains.
    fn dispatch(
        &self,
        applied: &BTreeMap<(usize, Direction), Vec<String>>,
        direction: Direction,
    ) -> Vec<String> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (index, _) in applied.keys().filter(|(_, way)| *way == direction) {
            let pod = &self.pods[*index];
            let chain = chain_name("pod", &pod.namespace, &pod.name, direction);
            for address in &pod.addresses {
                let elements = if address.is_ipv4() { &mut v4 } else { &mut v6 };
                elements.push(format!("{address} : goto {chain}"));
            }
        }
        let end = direction.own_end().keyword();
        [("ip", v4), ("ip6", v6)]
            .into_iter()
            .filter(|(_, elements)| !elements.is_empty())
            .map(|(family, elements)| format!("{family} {end} vmap {{ {} }}", elements.join(", ")))
            .collect()
    }
}

/// The other parties that a rule names.
enum Peers {
    Everyone,
    Only {
        blocks: Vec<Block>,
        addresses: BTreeSet<IpAddr>,
    },
}

impl Peers {
    fn matches(&self, end: End) -> Vec<Match> {
        match self {
            Self::Everyone => vec![Match::default()],
            Self::Only { blocks, addresses } => {
                let mut found = matches::addresses(end, addresses);
                found.extend(blocks.iter().map(|block| block.to_match(end)));
                found
            }
        }
    }

    fn contains(&self, address: &IpAddr) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only { blocks, addresses } => {
                addresses.contains(address) || blocks.iter().any(|block| block.contains(address))
            }
        }
    }
}

/// A label selector; none given or an empty one selects everything, a malformed one nothing.
struct Selection(Option<Selector>);

impl Selection {
    fn read(selector: Option<&LabelSelector>) -> Self {
        Self(Selector::try_from(selector.cloned().unwrap_or_default()).ok())
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
    }
}

/// Matches a named port at each of these pods, whose numbers may differ.
fn named_port<'a>(
    protocol: &str,
    name: &str,
    pods: impl Iterator<Item = &'a PodFacts>,
    is_meant: impl Fn(&IpAddr) -> bool,
) -> Vec<Match> {
    let mut pods_by_number: BTreeMap<u16, BTreeSet<&IpAddr>> = BTreeMap::new();
    for pod in pods {
        if let Some(number) = pod.port(name, &protocol.to_ascii_uppercase()) {
            let addresses = pod.addresses.iter().filter(|address| is_meant(address));
            pods_by_number.entry(number).or_default().extend(addresses);
        }
    }
    let by_number = pods_by_number.into_iter();
    by_number
        .flat_map(|(number, addresses)| {
            both(
                &matches::addresses(End::Destination, addresses),
                &[matches::port(protocol, number)],
            )
        })
        .collect()
}

fn both(one: &[Match], two: &[Match]) -> Vec<Match> {
    one.iter()
        .flat_map(|one| two.iter().filter_map(|two| one.and(two)))
        .collect()
}

/// What both hooks do before they look at pods.
fn preamble(pod_interface: &str) -> [String; 4] {
    [
        "iifname \"lo\" accept".into(),
        "ct state established,related accept".into(),
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
         nd-neighbor-advert, nd-redirect } accept"
            .into(),
        // No pod can be told by its link-local address, so it must not be a way round the policies.
        format!("iifname \"{pod_interface}\" ip6 saddr fe80::/10 drop"),
    ]
}

fn write_pod_chain(
    text: &mut String,
    pod: &PodFacts,
    direction: Direction,
    policy_chains: &[String],
) {
    // networking.k8s.io/v1: a pod cannot block access to itself (a Service may lead it there).
    let own = matches::addresses(direction.peer_end(), &pod.addresses);
    let mut lines: Vec<String> = own
        .iter()
        .map(|own| format!("{}{}", own.text(), direction.allow()))
        .collect();
    lines.extend(policy_chains.iter().map(|chain| format!("jump {chain}")));
    lines.push("counter drop".into());
    write_chain(
        text,
        &chain_name("pod", &pod.namespace, &pod.name, direction),
        &lines,
    );
}

fn write_chain(text: &mut String, name: &str, lines: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{");
    for line in lines {
        let _ = writeln!(text, "\t\t{line}");
    }
    text.push_str("\t}\n");
}

/// A readable name that differs for different objects.
fn chain_name(kind: &str, namespace: &str, name: &str, direction: Direction) -> String {
    let mut object = format!("{namespace}/{name}");
    if object.len() > LONGEST_NAME {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        object.truncate(LONGEST_NAME);
        let _ = write!(object, "/{:016x}", hasher.finish());
    }
    format!("{kind}/{object}/{}", direction.name())
}
