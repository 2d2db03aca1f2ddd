//! The addresses that `LoadBalancer` Services are given.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use ipnet::Ipv4Net;

/// A range of IPv4 addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Every address in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits)
    }
}

impl FromStr for AddressRange {
    type Err = anyhow::Error;

    /// Reads `A.B.C.D/N` (without its network and broadcast address) or `A.B.C.D-A.B.C.D`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (
                first
                    .trim()
                    .parse()
                    .with_context(|| format!("`{first}` is no IPv4 address"))?,
                last.trim()
                    .parse()
                    .with_context(|| format!("`{last}` is no IPv4 address"))?,
            )
        } else {
            let network: Ipv4Net = text
                .parse()
                .with_context(|| format!("`{text}` is neither an IPv4 CIDR nor FIRST-LAST"))?;
            let mut hosts = network.hosts();
            let first = hosts.next().unwrap_or(network.addr());
            (first, hosts.next_back().unwrap_or(first))
        };
        ensure!(first <= last, "{first} comes after {last}");
        Ok(Self { first, last })
    }
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
        assert!(range.contains(Ipv4Addr::new(10, 1, 3, 1)));
        assert!(!range.contains(Ipv4Addr::new(10, 1, 3, 2)));
        assert!(!range.contains(Ipv4Addr::new(10, 1, 2, 249)));
    }

    #[test]
    fn malformed_ranges_are_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.9-10.0.0.1",
            "10.0.0.0/33",
            "fd00::/64",
            "a-b",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text} was accepted");
        }
    }
}
