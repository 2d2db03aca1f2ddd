//! What the API server asks for.

use std::net::{IpAddr, Ipv4Addr};

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
        let port = authority.port_u16()?;
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            // `::ffff:10.0.0.1` is 10.0.0.1 by another name.
            let host = Host::Address(address.to_canonical());
            return Some(Self { authority, host });
        }
        // A name that ends in a dot is the same name.
        let name = host.strip_suffix('.').unwrap_or(host);
        if let Some(address) = numeric(name) {
            // The agent hears the usual form: who resolves names there may read the other differently.
            return Some(Self {
                authority: format!("{address}:{port}").parse().ok()?,
                host: Host::Address(address.into()),
            });
        }
        let host = Host::Name(name.to_ascii_lowercase());
        Some(Self { authority, host })
    }
}

/// The address that C libraries read in forms such as `0x7f.1` and `2130706433` (`inet_aton`): one to four numbers, decimal,
/// octal or hexadecimal, of which the last fills what is left.
fn numeric(host: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = numbers.split_last()?;
    let room = 4_u32.checked_sub(u32::try_from(bytes.len()).ok()?)?;
    let fits = room > 0 && u64::from(*last) < 1 << (8 * room);
    if !fits || bytes.iter().any(|byte| *byte > 255) {
        return None;
    }
    let front = bytes.iter().fold(0_u32, |all, byte| all << 8 | byte);
    let shifted = front.checked_shl(8 * room).unwrap_or(0);
    Some((shifted | last).into())
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // A sign would be taken as one.
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| u32::from_str_radix(digits, radix).ok())?
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
        for (form, meant) in [
            ("2130706433:1", "127.0.0.1"),
            ("0x7f.1:1", "127.0.0.1"),
            ("0177.0.0.01:1", "127.0.0.1"),
            ("10.1:1", "10.0.0.1"),
            ("10.0.258:1", "10.0.1.2"),
            ("10.0.0.1.:1", "10.0.0.1"),
            ("4294967295:1", "255.255.255.255"),
        ] {
            assert_eq!(host(form), address(meant), "{form}");
            let authority = Target::parse(form).unwrap().authority;
            assert_eq!(authority.as_str(), format!("{meant}:1"));
        }
        for name in [
            "256.0.0.1:1",
            "1.2.3.4.5:1",
            "0x:1",
            "08.1:1",
            "4294967296:1",
            "1.16777216:1",
        ] {
            let bare = name.strip_suffix(":1").unwrap();
            assert_eq!(host(name), Some(Host::Name(bare.to_owned())));
        }
        assert_eq!(
            host("LOCALHOST.:1"),
            Some(Host::Name("localhost".to_owned()))
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
