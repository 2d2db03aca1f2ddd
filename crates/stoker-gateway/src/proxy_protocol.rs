//! The PROXY protocol, versions 1 and 2 (haproxy's `doc/proxy-protocol.txt`): who the client is, told by a load balancer in
//! front of us, and told by us to a backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// First bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEADER: usize = 16;
/// Longest line of version 1 with its end.
const LONGEST_LINE: usize = 107;
/// Addresses and what load balancers of clouds add to them.
const LARGEST_BODY: usize = 2048;
/// Bytes that a header of either version may take.
pub const LARGEST_HEADER: usize = HEADER + LARGEST_BODY;

/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// Version 2, command LOCAL: the load balancer speaks for itself.
const LOCAL: u8 = 0x20;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNSPECIFIED: u8 = 0;
/// Type of the field that has the name.
const AUTHORITY: u8 = 2;

/// Both ends of a connection, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What it dialed.
    pub destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes.
    pub length: usize,
    /// Absent where it tells nothing, as that of a health check.
    pub ends: Option<Ends>,
    /// The name that the client asked for (`PP2_TYPE_AUTHORITY`), in lower case.
    pub authority: Option<Box<str>>,
}

/// The bytes are no header. A peer that must send one and does not is not guessed about.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no PROXY protocol header")]
pub struct NoHeader;

/// Reads the header at the start of `bytes`; `None` as long as it is not complete.
///
/// # Errors
/// As soon as no bytes to come could make it one.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return read_binary(bytes);
    }
    read_line(bytes)
}

/// Whether `bytes` begin as those of version 2, which those of TLS never do.
#[must_use]
pub fn begins(bytes: &[u8]) -> bool {
    bytes.first() == SIGNATURE.first()
}

fn read_binary(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, PROXY | LOCAL) || length > LARGEST_BODY {
        return Err(NoHeader);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let (ends, addresses) = match (command, family) {
        (PROXY, TCP_OVER_IPV4) => (Some(ipv4(body).ok_or(NoHeader)?), 12),
        (PROXY, TCP_OVER_IPV6) => (Some(ipv6(body).ok_or(NoHeader)?), 36),
        (PROXY, UNSPECIFIED) => (None, 0),
        // Fields behind what is not understood are not looked for.
        _ => (None, length),
    };
    Ok(Some(Header {
        length: HEADER + length,
        ends,
        authority: authority(&body[addresses..]),
    }))
}

/// The name among the fields that follow the addresses; none where the fields are broken.
fn authority(mut fields: &[u8]) -> Option<Box<str>> {
    while let Some(([kind, high, low], rest)) = fields.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length)?;
        if *kind == AUTHORITY {
            let name = str::from_utf8(value).ok()?;
            return Some(name.to_ascii_lowercase().into());
        }
        fields = rest;
    }
    None
}

fn ipv4(body: &[u8]) -> Option<Ends> {
    let (source, rest) = body.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    ends(Ipv4Addr::from(*source), Ipv4Addr::from(*destination), rest)
}

fn ipv6(body: &[u8]) -> Option<Ends> {
    let (source, rest) = body.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    ends(Ipv6Addr::from(*source), Ipv6Addr::from(*destination), rest)
}

fn ends(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, ports: &[u8]) -> Option<Ends> {
    let (from, rest) = ports.split_first_chunk()?;
    let (to, _) = rest.split_first_chunk()?;
    Some(Ends {
        source: SocketAddr::new(source.into(), u16::from_be_bytes(*from)),
        destination: SocketAddr::new(destination.into(), u16::from_be_bytes(*to)),
    })
}

fn read_line(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    const START: &[u8] = b"PROXY ";
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Err(NoHeader);
    }
    let window = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(NoHeader)
        };
    };
    let line = str::from_utf8(&window[START.len()..end]).map_err(|_| NoHeader)?;
    Ok(Some(Header {
        length: end + 2,
        ends: line_ends(line)?,
        authority: None,
    }))
}

fn line_ends(line: &str) -> Result<Option<Ends>, NoHeader> {
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, from, to] = words[..] else {
        let unknown = words.first() == Some(&"UNKNOWN");
        return if unknown { Ok(None) } else { Err(NoHeader) };
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    // `parse` would take "+1".
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = |text: &str| text.parse().ok().filter(|_| digits(text));
    let end = |ip: &str, number: &str| Some(SocketAddr::new(address(ip)?, port(number)?));
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let ends = end(source, from).zip(end(destination, to));
    let (source, destination) = ends.ok_or(NoHeader)?;
    Ok(Some(Ends {
        source,
        destination,
    }))
}

/// A header of version 2. Ends of different families are both written as IPv6.
#[must_use]
pub fn write(ends: &Ends) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(PROXY);
    match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([TCP_OVER_IPV4, 0, 12]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        (source, destination) => {
            header.extend([TCP_OVER_IPV6, 0, 36]);
            header.extend(as_ipv6(source).octets());
            header.extend(as_ipv6(destination).octets());
        }
    }
    header.extend(ends.source.port().to_be_bytes());
    header.extend(ends.destination.port().to_be_bytes());
    header
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;
