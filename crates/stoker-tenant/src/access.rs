//! How nodes and people reach a tenant's API server.

use std::net::{IpAddr, Ipv6Addr};

/// How nodes and people reach a tenant's API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// IP address (IPv6 without brackets) or name that nodes dial.
    pub host: String,
    /// Port that nodes dial.
    pub port: u16,
    /// Addresses for the `kubernetes` Endpoints, which the tenant's pods dial. Those that the API
    /// server refuses there are left out.
    pub addresses: Vec<IpAddr>,
    /// Port at those addresses.
    pub direct_port: u16,
    /// For agents of the tunnel; `None` where it is not known yet.
    pub tunnel: Option<TunnelAgents>,
    /// For listeners on nodes; `None` where there are none, or it is not known yet what they dial.
    pub listeners: Option<NodeListeners>,
    /// Authorities that sign the API server's certificate, PEM, one or more.
    pub certificate_authority: String,
}

/// What agents of the tunnel are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelAgents {
    /// What they dial, `host:port`, an IPv6 address in brackets.
    pub server: String,
    /// Their image, unless the spec names another.
    pub image: String,
}

/// What listeners on nodes are given; they listen at the addresses that pods dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeListeners {
    /// What they dial, each `host:port`, an IPv6 address in brackets.
    pub servers: Vec<String>,
    /// The name that they tell a gateway.
    pub name: Option<String>,
    /// Their image.
    pub image: String,
}

impl Access {
    /// `host:port`, an IPv6 address in brackets (Go's `net.JoinHostPort`, as kubeadm writes it).
    #[must_use]
    pub fn endpoint(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.endpoint())
    }
}
