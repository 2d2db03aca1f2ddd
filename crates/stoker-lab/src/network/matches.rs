//! nftables match expressions: addresses of peers and ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The end of a packet's way that an address match looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl End {
    /// nft's keyword for it.
    pub(super) fn keyword(self) -> &'static str {
        match self {
            Self::Source => "saddr",
            Self::Destination => "daddr",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A conjunction of expressions; the empty one matches every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Match {
    family: Option<Family>,
    text: String,
}

impl Match {
    /// Both matches, or nothing where they ask for different address families (nft refuses those).
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        if let (Some(one), Some(two)) = (self.family, other.family)
            && one != two
        {
            return None;
        }
        Some(Self {
            family: self.family.or(other.family),
            text: format!("{}{}", self.text, other.text),
        })
    }

    /// The expressions, each followed by a space.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn any_family(text: String) -> Self {
        Self { family: None, text }
    }
}

/// Matches packets from or to any of these addresses: at most one match per family.
pub(super) fn addresses<'a>(
    end: End,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
) -> Vec<Match> {
    let (v4, v6): (BTreeSet<&IpAddr>, BTreeSet<&IpAddr>) =
        addresses.into_iter().partition(|address| address.is_ipv4());
    [(Family::V4, v4), (Family::V6, v6)]
        .into_iter()
        .filter(|(_, addresses)| !addresses.is_empty())
        .map(|(family, addresses)| Match {
            family: Some(family),
            text: format!("{} {} {} ", family.keyword(), end.keyword(), set(addresses)),
        })
        .collect()
}

/// An `ipBlock` that could be read whole.
#[derive(Clone, Debug)]
pub(super) struct Block {
    network: IpNet,
    except: Vec<IpNet>,
}

impl Block {
    /// Nothing when a part is no CIDR: the API server lets none through, and allowing less is safe.
    pub(super) fn read(block: &IPBlock) -> Option<Self> {
        let network: IpNet = block.cidr.parse().ok()?;
        let except: Result<Vec<IpNet>, _> = block
            .except
            .iter()
            .flatten()
            .map(|cidr| cidr.parse::<IpNet>())
            .collect();
        let except = except.ok()?.iter().map(IpNet::trunc).collect();
        // Overlapping elements of one set are refused by nft.
        Some(Self {
            network: network.trunc(),
            except: IpNet::aggregate(&except),
        })
    }

    pub(super) fn contains(&self, address: &IpAddr) -> bool {
        self.network.contains(address) && !self.except.iter().any(|net| net.contains(address))
    }

    pub(super) fn to_match(&self, end: End) -> Match {
        let family = Family::of(&self.network.addr());
        let address = format!("{} {}", family.keyword(), end.keyword());
        let mut text = if self.network.prefix_len() == 0 {
            format!(
                "meta nfproto {} ",
                if family == Family::V4 { "ipv4" } else { "ipv6" }
            )
        } else {
            format!("{address} {} ", self.network)
        };
        if !self.except.is_empty() {
            let _ = write!(text, "{address} != {} ", set(&self.except));
        }
        Match {
            family: Some(family),
            text,
        }
    }
}

/// The ports of one policy rule.
#[derive(Debug, Default)]
pub(super) struct Ports {
    numbers: Vec<Match>,
    named: Vec<(&'static str, String)>,
}

impl Ports {
    /// Reads the ports of a rule; no ports mean all ports and protocols.
    pub(super) fn read(ports: &[NetworkPolicyPort]) -> Self {
        if ports.is_empty() {
            return Self {
                numbers: vec![Match::default()],
                named: Vec::new(),
            };
        }
        let mut ranges: BTreeMap<&'static str, Vec<(u16, u16)>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for port in ports {
            let Some(protocol) = protocol_keyword(port.protocol.as_deref()) else {
                continue;
            };
            match &port.port {
                None => ranges.entry(protocol).or_default().push((0, u16::MAX)),
                Some(IntOrString::Int(first)) => {
                    let last = port.end_port.unwrap_or(*first);
                    if let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(last)) {
                        ranges.entry(protocol).or_default().push((first, last));
                    }
                }
                Some(IntOrString::String(name)) => {
                    named.insert((protocol, name.clone()));
                }
            }
        }
        let numbers = ranges
            .into_iter()
            .map(|(protocol, ranges)| ports_match(protocol, ranges));
        Self {
            numbers: numbers.collect(),
            named: named.into_iter().collect(),
        }
    }

    /// One match per protocol for the ports that are numbers.
    pub(super) fn numbers(&self) -> &[Match] {
        &self.numbers
    }

    /// The named ports as (protocol in nft's spelling, name); what they mean depends on the pod.
    pub(super) fn named(&self) -> &[(&'static str, String)] {
        &self.named
    }
}

/// Matches one destination port.
pub(super) fn port(protocol: &str, number: u16) -> Match {
    Match::any_family(format!("{protocol} dport {number} "))
}

fn protocol_keyword(protocol: Option<&str>) -> Option<&'static str> {
    match protocol.unwrap_or("TCP") {
        "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

fn ports_match(protocol: &str, ranges: Vec<(u16, u16)>) -> Match {
    let merged = merge(ranges);
    if merged == [(0, u16::MAX)] {
        return Match::any_family(format!("meta l4proto {protocol} "));
    }
    let elements = merged.iter().map(|&(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    Match::any_family(format!("{protocol} dport {} ", set(elements)))
}

/// Sorted ranges without overlaps, which nft refuses inside one set.
fn merge(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(previous) if first <= previous.1.saturating_add(1) => {
                previous.1 = previous.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn set(elements: impl IntoIterator<Item = impl Display>) -> String {
    let elements: Vec<String> = elements
        .into_iter()
        .map(|element| element.to_string())
        .collect();
    format!("{{ {} }}", elements.join(", "))
}
