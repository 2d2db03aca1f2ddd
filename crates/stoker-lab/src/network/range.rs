//! The addresses that `LoadBalancer` Services are given.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use ipnet::IpNet;

/// A range of addresses of one IP family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// Whether its addresses are of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Every address in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let mapped = bits(self.first)..=bits(self.last);
        mapped.map(|bits| Ipv6Addr::from_bits(bits).to_canonical())
    }
}

/// As an IPv6 address, in which IPv4 has its place.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for AddressRange {
    type Err = anyhow::Error;

    /// Reads `A.B.C.D/N` (without its network and broadcast address) or `A.B.C.D-A.B.C.D`, and the same of IPv6.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (address(first)?, address(last)?)
        } else {
            let network: IpNet = text
                .parse()
                .with_context(|| format!("`{text}` is neither a CIDR nor FIRST-LAST"))?;
            match network {
                IpNet::V4(network) => {
                    let mut hosts = network.hosts();
                    let first = hosts.next().unwrap_or(network.addr());
                    (first.into(), hosts.next_back().unwrap_or(first).into())
                }
                IpNet::V6(network) => (network.network().into(), network.broadcast().into()),
            }
        };
        ensure!(
            first.is_ipv4() == last.is_ipv4(),
            "{first} and {last} are not of one IP family"
        );
        ensure!(first <= last, "{first} comes after {last}");
        Ok(Self { first, last })
    }
}

fn address(text: &str) -> anyhow::Result<IpAddr> {
    let text = text.trim();
    text.parse()
        .with_context(|| format!("`{text}` is no address"))
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_cidr_leaves_out_network_and_broadcast() {
        assert_eq!(range("10.1.2.0/29").to_string(), "10.1.2.1-10.1.2.6");
        assert_eq!(range("10.1.2.3/32").to_string(), "10.1.2.3-10.1.2.3");
        assert_eq!(range("10.1.2.4/31").to_string(), "10.1.2.4-10.1.2.5");
    }

    #[test]
    fn both_ends_belong_to_the_range() {
        let range = range("10.1.2.250-10.1.3.1");
        assert_eq!(range.addresses().count(), 8);
        let contains = |text: &str| range.contains(text.parse().unwrap());
        assert!(contains("10.1.3.1") && range.addresses().any(|ip| ip.to_string() == "10.1.3.1"));
        assert!(!contains("10.1.3.2") && !contains("10.1.2.249"));
        assert!(!contains("::ffff:10.1.3.1"));
    }

    #[test]
    fn a_range_of_ipv6_has_every_address_of_it() {
        let range = range("fd00::fe-fd00::101");
        let all: Vec<_> = range
            .addresses()
            .map(|address| address.to_string())
            .collect();
        assert_eq!(all, ["fd00::fe", "fd00::ff", "fd00::100", "fd00::101"]);
        assert!(!range.is_ipv4() && range.contains("fd00::100".parse().unwrap()));
    }

    #[test]
    fn malformed_ranges_are_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.9-10.0.0.1",
            "10.0.0.0/33",
            "10.0.0.1-fd00::1",
            "a-b",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text} was accepted");
        }
    }
}
