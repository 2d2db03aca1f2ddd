//! Which addresses a lab uses, all derived from its name so that labs can live side by side.
//!
//! Tenants default to services in 10.96.0.0/16 and pods in 10.244.0.0/16; nothing here overlaps these.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;

/// Labs that fit into the address plan.
const LABS: u64 = 64;
/// First host number of workers.
const FIRST_WORKER: u8 = 10;
/// Workers of one lab.
pub const WORKERS: u8 = 80;

/// The address plan of one lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    index: u8,
}

impl Addresses {
    /// The plan of the lab `name`: `demo` and `e2e` never collide, others by their hash.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let index = match name {
            "demo" => 0,
            "e2e" => 1,
            other => {
                let mut hasher = DefaultHasher::new();
                other.hash(&mut hasher);
                u8::try_from(2 + hasher.finish() % (LABS - 2)).unwrap_or(2)
            }
        };
        Self { index }
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

    /// Pods of the management cluster.
    #[must_use]
    pub fn pods(self) -> String {
        format!("10.200.{}.0/24", self.index)
    }

    /// Services of the management cluster.
    #[must_use]
    pub fn services(self) -> String {
        format!("10.201.{}.0/22", self.index * 4)
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
    pub fn networks(self) -> [String; 3] {
        let hosts = format!("{}/{}", self.host(0), self.host_prefix());
        [hosts, self.pods(), self.services()]
    }

    const fn host(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_usual_labs_and_tenants_do_not_overlap() {
        let (demo, e2e) = (Addresses::of("demo"), Addresses::of("e2e"));
        assert_ne!(demo.pods(), e2e.pods());
        assert_ne!(demo.services(), e2e.services());
        assert_ne!(demo.gateway(), e2e.gateway());
        assert_eq!(demo.worker(1), Ipv4Addr::new(172, 30, 0, 10));
    }

    #[test]
    fn the_last_worker_is_below_the_load_balancers() {
        let plan = Addresses::of("demo");
        assert!(plan.worker(WORKERS) < plan.load_balancers().0);
    }
}
