//! What the far end dials, and what it does not: a stream ends in the tenant's network, but neither on this
//! machine's loopback nor at the cloud's metadata service, which would tell this machine's own secrets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::StatusCode;
use http::uri::Authority;
use ipnet::IpNet;
use stoker_sockets::options;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::dial;

/// How long a target may take to accept.
const DIAL: Duration = Duration::from_secs(10);

/// Metadata services that are not link-local: Alibaba's, Azure's, Oracle's, and over IPv6 those of AWS, Google and Scaleway.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

/// Rules for what is dialled.
#[derive(Clone, Debug)]
pub struct Egress {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    #[cfg(test)]
    loopback: bool,
}

/// Why something was not dialled, or did not answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

fn refused(status: StatusCode, reason: impl Into<String>) -> Refused {
    Refused {
        status,
        reason: reason.into(),
    }
}

impl Egress {
    /// Without `allow`, everything that is not denied.
    #[must_use]
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self {
            allow,
            deny,
            #[cfg(test)]
            loopback: false,
        }
    }

    /// Everything, loopback too: where tests have their targets.
    #[cfg(test)]
    pub(super) fn unlimited() -> Self {
        Self {
            loopback: true,
            ..Self::new(Vec::new(), Vec::new())
        }
    }

    /// Whether an address is dialled.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = meant(address);
        #[cfg(test)]
        if self.loopback && address.is_loopback() {
            return true;
        }
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_special(address)
            && !METADATA.contains(&address)
            && !within(&self.deny)
            && (self.allow.is_empty() || within(&self.allow))
    }

    /// Dials the first of the target's addresses that answers. The address that was judged is the one
    /// that is dialled: a name cannot change its meaning in between.
    pub(super) async fn dial(&self, target: &Authority) -> Result<TcpStream, Refused> {
        let host = target.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let Some(port) = target.port_u16() else {
            return Err(refused(StatusCode::BAD_REQUEST, "no port"));
        };
        let dial = async {
            let addresses: Vec<_> = lookup_host((bare.unwrap_or(host), port))
                .await
                .map_err(|error| refused(StatusCode::BAD_GATEWAY, format!("{host}: {error}")))?
                .collect();
            self.dial_one_of(&addresses).await
        };
        timeout(DIAL, dial)
            .await
            .unwrap_or_else(|_| Err(refused(StatusCode::GATEWAY_TIMEOUT, "no answer in 10 s")))
    }

    async fn dial_one_of(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Refused> {
        let permitted = |address: &SocketAddr| self.permits(address.ip());
        let addresses: Vec<_> = addresses.iter().copied().filter(permitted).collect();
        if addresses.is_empty() {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "this address is not dialled",
            ));
        }
        let socket = dial::first_of(addresses)
            .await
            .map_err(|error| failed(&error))?;
        // A target that vanished holds a place until it is noticed. As good as it gets: without them it is noticed by
        // whoever waits for it.
        let _ = options(&socket);
        Ok(socket)
    }
}

/// 503 lets another agent try.
fn failed(error: &io::Error) -> Refused {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable};
    let status = match error.kind() {
        HostUnreachable | NetworkUnreachable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    refused(status, error.to_string())
}

/// The address behind forms that only wrap an IPv4 one: mapped, compatible, NAT64's.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    let parts = v6.segments();
    let wraps = parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || (parts[..6] == [0; 6] && parts[6] != 0);
    if wraps {
        let [a, b] = parts[6].to_be_bytes();
        let [c, d] = parts[7].to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        v6.into()
    }
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                // NAT64 of a network's own (RFC 8215): where an IPv4 address is in it, nobody but that network knows.
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
                || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(egress: &Egress, address: &str) -> bool {
        egress.permits(address.parse().unwrap())
    }

    #[test]
    fn the_machine_itself_and_metadata_are_never_dialled_in_any_form() {
        let egress = Egress::new(
            vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            vec![],
        );
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "ff02::1",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
        ] {
            assert!(!permits(&egress, address), "{address}");
        }
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(permits(&egress, address), "{address}");
        }
    }

    #[test]
    fn networks_are_denied_and_allowed() {
        let egress = Egress::new(
            vec!["10.0.0.0/8".parse().unwrap()],
            vec!["10.9.0.0/16".parse().unwrap()],
        );
        assert!(permits(&egress, "10.1.0.1"));
        assert!(permits(&egress, "::ffff:10.1.0.1"));
        assert!(!permits(&egress, "10.9.0.1"));
        assert!(!permits(&egress, "::ffff:10.9.0.1"));
        assert!(!permits(&egress, "192.168.0.1"));
    }

    #[tokio::test]
    async fn a_name_is_judged_by_its_addresses() {
        let egress = Egress::new(vec![], vec![]);
        let target = "localhost:1".parse().unwrap();
        let refusal = egress.dial(&target).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
    }
}
