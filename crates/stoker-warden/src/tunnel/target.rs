//! What the API server asks for.

use std::net::IpAddr;

use http::uri::Authority;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As it was asked for.
    pub(super) authority: Authority,
    /// What is compared with the addresses of nodes.
    pub(super) host: Host,
}

/// An address, or a name in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl Target {
    /// `None` when it is not a host and a port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let (host, _) = text.rsplit_once(':')?;
        authority.port_u16()?;
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bare.unwrap_or(host).parse::<IpAddr>() {
            // `::ffff:10.0.0.1` is 10.0.0.1 by another name.
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => Host::Name(host.to_ascii_lowercase()),
        };
        Some(Self { authority, host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<Host> {
        Target::parse(text).map(|target| target.host)
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let address = |text: &str| Some(Host::Address(text.parse().unwrap()));
        assert_eq!(host("10.0.0.1:10250"), address("10.0.0.1"));
        assert_eq!(host("[fd00::1]:10250"), address("fd00::1"));
        assert_eq!(host("[::ffff:10.0.0.1]:443"), address("10.0.0.1"));
        assert_eq!(
            host("Worker-1:10250"),
            Some(Host::Name("worker-1".to_owned()))
        );
        for wrong in [
            "",
            ":443",
            "worker-1",
            "worker-1:",
            "worker-1:x",
            "worker-1:70000",
            "a@b:443",
            "a b:443",
            "a/b:443",
        ] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }
}
