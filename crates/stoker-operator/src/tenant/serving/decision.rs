//! Whether a kubelet gets the serving certificate that it asks for. Pure.
//!
//! The signer checks that a request has the form of a kubelet's; who asks, and for which addresses, is the approver's
//! to check (`kubernetes.io/kubelet-serving`). A node writes the addresses in its own status, so that they alone
//! prove nothing: what belongs to another node, to the API server or to a Service is refused whatever the status says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use stoker_kube::{KubeletRequest, NodeAddresses};
use stoker_pki::SigningRequest;

const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";
/// A kubelet asks for the addresses that it is about to write into its node's status.
const STATUS_LAG: SignedDuration = SignedDuration::from_secs(10);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Approve,
    /// With what is wrong.
    Deny(String),
    /// Nobody can tell yet, because of this.
    Wait(String),
}

/// Names and addresses that no node serves.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved {
    /// Of the API server, in lower case.
    pub(super) names: BTreeSet<String>,
    /// Of the API server.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Of Services.
    pub(super) service_networks: Vec<IpNet>,
    /// Of Services and pods.
    pub(super) cluster_domain: String,
    /// In which all addresses of a node are, by its name, if the token that it joined by says so. Such a node serves under
    /// no other name than its own either: what another name leads to is not known here.
    pub(super) networks: BTreeMap<String, Vec<IpNet>>,
}

/// Decides about `request`, made by one of `nodes` or by somebody who says so.
pub(super) fn decide(
    request: &KubeletRequest,
    nodes: &[NodeAddresses],
    reserved: &Reserved,
    now: Timestamp,
) -> Decision {
    let (name, asked) = match identified(request) {
        Ok(identified) => identified,
        Err(why) => return Decision::Deny(why),
    };
    let wanted = Hosts::of_request(&asked);
    if let Some(why) = wanted.offence(reserved) {
        return Decision::Deny(why);
    }
    if let Some(why) = reserved.offence_of_bound(name, &wanted) {
        return Decision::Deny(why);
    }
    let Some(node) = nodes.iter().find(|node| node.name == name) else {
        return Decision::Wait(format!("there is no Node {name:?} yet"));
    };
    let own = Hosts::of_node(node);
    if own.is_empty() {
        return Decision::Wait(format!("the Node {name:?} has no addresses yet"));
    }
    if let Some(foreign) = wanted.first_beyond(&own) {
        let why = format!("{foreign} is not among status.addresses of the Node {name:?}");
        let young = request
            .created
            .is_some_and(|created| now.duration_since(created) < STATUS_LAG);
        return if young {
            Decision::Wait(why)
        } else {
            Decision::Deny(why)
        };
    }
    for other in nodes.iter().filter(|other| other.name != name) {
        if let Some(shared) = wanted.first_within(&Hosts::of_other(other)) {
            return Decision::Deny(format!(
                "{shared} is also the Node {:?}'s: delete that Node if it is gone",
                other.name
            ));
        }
    }
    Decision::Approve
}

/// The node that asks, and for what, if who asks and what is asked fit together and the signer signs such.
fn identified(request: &KubeletRequest) -> Result<(&str, SigningRequest), String> {
    let user = &request.username;
    let name = user.strip_prefix(USER).filter(|name| !name.is_empty());
    let name = name.filter(|_| request.groups.iter().any(|group| group == GROUP));
    let Some(name) = name else {
        return Err(format!(
            "only a node may ask for a kubelet's serving certificate, and {user:?} is none"
        ));
    };
    let asked = SigningRequest::from_pem(&request.request).map_err(|error| error.to_string())?;
    if asked.common_name != *user {
        return Err(format!(
            "its common name is {:?}, and {user:?} asks for it",
            asked.common_name
        ));
    }
    if asked.organizations != [GROUP] {
        return Err(format!(
            "its organization must be {GROUP} alone, and is {:?}",
            asked.organizations
        ));
    }
    let mut usages: Vec<&str> = request.usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    let with_rsa = ["digital signature", "key encipherment", "server auth"];
    if usages != with_rsa && usages != ["digital signature", "server auth"] {
        return Err(format!("its usages are not a kubelet's: {usages:?}"));
    }
    if asked.dns_names.is_empty() && asked.ip_addresses.is_empty() {
        return Err("it names no address".to_owned());
    }
    Ok((name, asked))
}

/// Names in lower case, and addresses.
#[derive(Default)]
struct Hosts {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Hosts {
    fn of_request(asked: &SigningRequest) -> Self {
        let names = asked.dns_names.iter();
        Self {
            names: names.map(|name| name.to_ascii_lowercase()).collect(),
            addresses: asked.ip_addresses.iter().copied().collect(),
        }
    }

    /// What a kubelet asks for, of such addresses
    /// (`k8s.io/kubernetes/pkg/kubelet/certificate/kubelet.go`, `addressesToHostnamesAndIPs`).
    fn of_node(node: &NodeAddresses) -> Self {
        let mut hosts = Self::default();
        for found in &node.addresses {
            match (found.type_.as_str(), parse(&found.address)) {
                ("InternalIP" | "ExternalIP" | "Hostname", Some(address)) => {
                    hosts.addresses.insert(address);
                }
                ("InternalDNS" | "ExternalDNS" | "Hostname", None) => {
                    hosts.names.insert(found.address.to_ascii_lowercase());
                }
                _ => {}
            }
        }
        hosts
    }

    /// Whatever points to a node that is not the one that asks.
    fn of_other(node: &NodeAddresses) -> Self {
        let mut hosts = Self::default();
        let addresses = node.addresses.iter().map(|found| &found.address);
        for text in addresses.chain([&node.name]) {
            match parse(text) {
                Some(address) => hosts.addresses.insert(address),
                None => hosts.names.insert(text.to_ascii_lowercase()),
            };
        }
        hosts
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.is_empty()
    }

    fn first_beyond(&self, known: &Self) -> Option<String> {
        let name = self.names.difference(&known.names).next().cloned();
        let address = || self.addresses.difference(&known.addresses).next();
        name.or_else(|| address().map(ToString::to_string))
    }

    fn first_within(&self, known: &Self) -> Option<String> {
        let name = self.names.intersection(&known.names).next().cloned();
        let address = || self.addresses.intersection(&known.addresses).next();
        name.or_else(|| address().map(ToString::to_string))
    }

    /// The first that no node may serve, and why.
    fn offence(&self, reserved: &Reserved) -> Option<String> {
        let names = self.names.iter().find_map(|name| {
            let why = reserved.offence_of_name(name)?;
            Some(format!("{name:?} {why}"))
        });
        names.or_else(|| {
            self.addresses.iter().find_map(|address| {
                let why = reserved.offence_of_address(*address)?;
                Some(format!("{address} {why}"))
            })
        })
    }
}

impl Reserved {
    fn offence_of_name(&self, name: &str) -> Option<&'static str> {
        let under = |zone: &str| {
            name.strip_suffix(zone)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        let domain = self
            .cluster_domain
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let zones = [
            "svc".to_owned(),
            format!("svc.{domain}"),
            format!("pod.{domain}"),
        ];
        if !is_host_name(name) {
            Some("is no host's name")
        } else if name == "localhost" || under("localhost") {
            Some("is every machine's own")
        } else if self.names.contains(name) {
            Some("is the API server's")
        } else if name == domain || zones.iter().any(|zone| name == zone || under(zone)) {
            Some("belongs to Services and pods")
        } else {
            None
        }
    }

    /// What is wrong for the node `name` if it is bound to networks.
    fn offence_of_bound(&self, name: &str, wanted: &Hosts) -> Option<String> {
        let allowed = self.networks.get(name)?;
        let of_token = "of the JoinToken that the node joined by";
        let within = |address: &&IpAddr| allowed.iter().any(|net| net.contains(*address));
        if let Some(address) = wanted.addresses.iter().find(|address| !within(address)) {
            return Some(format!("{address} is in no network {of_token}"));
        }
        if wanted.addresses.is_empty() {
            return Some(format!(
                "it names no address, and must name one in a network {of_token}"
            ));
        }
        let own = name.to_ascii_lowercase();
        let other = wanted.names.iter().find(|other| **other != own)?;
        Some(format!(
            "{other:?} is not the node's name, and a network {of_token} binds no name but that"
        ))
    }

    fn offence_of_address(&self, address: IpAddr) -> Option<&'static str> {
        if is_nobodys(address) {
            Some("is no address of one machine")
        } else if self.addresses.contains(&address) {
            Some("is the API server's")
        } else if self
            .service_networks
            .iter()
            .any(|net| net.contains(&address))
        {
            Some("belongs to Services")
        } else {
            None
        }
    }
}

fn parse(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// Labels of letters, digits, `-` and `_`, without a wildcard, an empty label or a dot at the end.
fn is_host_name(name: &str) -> bool {
    let fits = |label: &str| {
        let mut bytes = label.bytes();
        !label.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.split('.').all(fits)
}

/// Those that a kubelet takes for no address of a node either (`validateNodeIP`).
fn is_nobodys(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => is_link_local(address),
    };
    address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests;
