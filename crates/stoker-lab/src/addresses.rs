//! Which addresses a lab uses, all derived from its name so that labs can live side by side.
//!
//! Tenants default to services in 10.96.0.0/16 and pods in 10.244.0.0/16; nothing here overlaps these. A lab of both IP
//! families has IPv6 networks beside them, below `fd53:746f:6b72::/48`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Labs that fit into the address plan.
const LABS: usize = 64;
/// Labs of this repository, each by its place: they never collide.
const OURS: [&str; 6] = ["demo", "e2e", "bench", "front", "networks", "tunnel"];
/// First host number of workers.
const FIRST_WORKER: u8 = 10;
/// Workers of one lab.
pub const WORKERS: u8 = 80;

/// The third part of labs' IPv6 networks, of which the fourth is the lab's number and what the network is for.
const IPV6: [u16; 3] = [0xfd53, 0x746f, 0x6b72];

/// The address plan of one lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    index: u8,
    dual_stack: bool,
}

/// What an IPv6 network of a lab is for.
#[derive(Debug, Clone, Copy)]
enum Use {
    Hosts,
    Pods,
    Services,
}

impl Addresses {
    /// The plan of the lab `name`: those of this repository have numbers of their own, others one by their hash.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let number = OURS
            .iter()
            .position(|ours| *ours == name)
            .unwrap_or_else(|| {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                let others = LABS - OURS.len();
                OURS.len() + usize::try_from(hasher.finish() % others as u64).unwrap_or_default()
            });
        let index = u8::try_from(number).unwrap_or_default();
        Self {
            index,
            dual_stack: false,
        }
    }

    /// The same plan with IPv6 beside IPv4.
    #[must_use]
    pub const fn with_ipv6(self) -> Self {
        Self {
            dual_stack: true,
            ..self
        }
    }

    /// Whether two labs would use the same addresses.
    #[must_use]
    pub const fn are_those_of(self, other: Self) -> bool {
        self.index == other.index
    }

    /// The IPv6 address of whoever has this address on the bridge, in a lab of both families.
    #[must_use]
    pub fn ipv6(self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let [.., number] = address.octets();
        self.dual_stack
            .then(|| self.network(Use::Hosts, number.into()))
    }

    /// The address, and the IPv6 one beside it in a lab of both families.
    #[must_use]
    pub fn both(self, address: Ipv4Addr) -> Vec<IpAddr> {
        let ipv6 = self.ipv6(address).map(IpAddr::V6);
        std::iter::once(address.into()).chain(ipv6).collect()
    }

    /// The machine's own address on the lab's bridge, the hosts' default route.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The management host.
    #[must_use]
    pub const fn management(self) -> Ipv4Addr {
        self.host(2)
    }

    /// The host of the pool's etcd.
    #[must_use]
    pub const fn pool(self) -> Ipv4Addr {
        self.host(3)
    }

    /// The worker host with this number, counted from 1.
    #[must_use]
    pub const fn worker(self, number: u8) -> Ipv4Addr {
        self.host(FIRST_WORKER + number - 1)
    }

    /// Prefix length of the hosts' network.
    #[must_use]
    pub const fn host_prefix(self) -> u8 {
        24
    }

    /// Prefix length of the hosts' IPv6 network.
    #[must_use]
    pub const fn host_prefix_ipv6(self) -> u8 {
        64
    }

    /// Pods of the management cluster, a network per IP family.
    #[must_use]
    pub fn pods(self) -> Vec<String> {
        let ipv4 = format!("10.200.{}.0/24", self.index);
        self.per_family(ipv4, Use::Pods, 64)
    }

    /// Services of the management cluster, a network per IP family.
    #[must_use]
    pub fn services(self) -> Vec<String> {
        let ipv4 = format!("10.201.{}.0/22", self.index * 4);
        self.per_family(ipv4, Use::Services, 112)
    }

    /// The management cluster's own API server as a Service.
    #[must_use]
    pub const fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 201, self.index * 4, 1)
    }

    /// The management cluster's DNS.
    #[must_use]
    pub const fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 201, self.index * 4, 10)
    }

    /// Addresses for Services of type `LoadBalancer`, first and last.
    #[must_use]
    pub const fn load_balancers(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.host(100), self.host(250))
    }

    /// All of its networks on this machine.
    #[must_use]
    pub fn networks(self) -> Vec<String> {
        let hosts = format!("{}/{}", self.host(0), self.host_prefix());
        let hosts = self.per_family(hosts, Use::Hosts, self.host_prefix_ipv6());
        [hosts, self.pods(), self.services()].concat()
    }

    fn per_family(self, ipv4: String, kind: Use, prefix: u8) -> Vec<String> {
        let ipv6 = format!("{}/{prefix}", self.network(kind, 0));
        let ipv6 = self.dual_stack.then_some(ipv6);
        std::iter::once(ipv4).chain(ipv6).collect()
    }

    fn network(self, kind: Use, last: u16) -> Ipv6Addr {
        let [a, b, c] = IPV6;
        let fourth = u16::from(self.index) << 8 | kind as u16;
        Ipv6Addr::new(a, b, c, fourth, 0, 0, 0, last)
    }

    const fn host(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_of_this_repository_and_tenants_do_not_overlap() {
        for (number, name) in OURS.iter().enumerate() {
            let plan = Addresses::of(name);
            let others = OURS.iter().skip(number + 1).chain(&["selftest", "x"]);
            for other in others.map(|other| Addresses::of(other)) {
                assert!(!plan.are_those_of(other), "{name} and {other:?}");
                assert_ne!(plan.pods(), other.pods());
                assert_ne!(plan.services(), other.services());
            }
        }
        assert_eq!(
            Addresses::of("demo").worker(1),
            Ipv4Addr::new(172, 30, 0, 10)
        );
    }

    #[test]
    fn a_lab_of_both_families_has_an_ipv6_network_beside_every_ipv4_one() {
        let (one, both) = (Addresses::of("e2e"), Addresses::of("e2e").with_ipv6());
        assert!(both.are_those_of(one));
        assert_eq!(one.ipv6(one.worker(1)), None);
        assert_eq!(
            both.both(both.worker(1)),
            ["172.30.1.10", "fd53:746f:6b72:100::a"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            both.networks(),
            [
                "172.30.1.0/24",
                "fd53:746f:6b72:100::/64",
                "10.200.1.0/24",
                "fd53:746f:6b72:101::/64",
                "10.201.4.0/22",
                "fd53:746f:6b72:102::/112",
            ]
        );
    }

    #[test]
    fn the_last_worker_is_below_the_load_balancers() {
        let plan = Addresses::of("demo");
        assert!(plan.worker(WORKERS) < plan.load_balancers().0);
    }
}
