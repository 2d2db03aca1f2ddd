//! The body of a `ClientHello` (RFC 8446, 4.1.2; the same layout since TLS 1.0).

use super::{ClientHello, Invalid, TUNNEL};

/// Type of the handshake message.
pub(super) const CLIENT_HELLO: u8 = 1;

/// Number of the extension `server_name` (RFC 6066, 3).
const SERVER_NAME: u16 = 0;
/// Number of the extension `application_layer_protocol_negotiation` (RFC 7301, 3.1).
const PROTOCOLS: u16 = 16;
/// The only kind of name there is.
const HOST_NAME: u8 = 0;
/// Version and random.
const FIXED: usize = 2 + 32;
/// Longest DNS name.
const LONGEST_NAME: usize = 253;

pub(super) fn parse(body: &[u8]) -> Result<ClientHello, Invalid> {
    hello(body).ok_or(Invalid::Broken)
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut rest = Bytes(body);
    rest.take(FIXED)?;
    // Session id, cipher suites, compression methods.
    rest.short_vector()?;
    rest.vector()?;
    rest.short_vector()?;
    let (mut server_name, mut tunnel) = (None, false);
    // Before TLS 1.2 there need not be any.
    if !rest.0.is_empty() {
        let mut extensions = Bytes(rest.vector()?);
        rest.0.is_empty().then_some(())?;
        while !extensions.0.is_empty() {
            let number = extensions.number()?;
            let content = extensions.vector()?;
            match number {
                SERVER_NAME => {
                    // Twice is forbidden; a second one could name another than the API server reads.
                    server_name.is_none().then_some(())?;
                    server_name = Some(host_name(content)?);
                }
                PROTOCOLS => tunnel |= offers_tunnel(content)?,
                _ => {}
            }
        }
    }
    Some(ClientHello {
        server_name,
        tunnel,
    })
}

fn offers_tunnel(extension: &[u8]) -> Option<bool> {
    let mut extension = Bytes(extension);
    let mut protocols = Bytes(extension.vector()?);
    let mut offered = false;
    while !protocols.0.is_empty() {
        offered |= protocols.short_vector()?.starts_with(TUNNEL);
    }
    Some(offered)
}

/// The one host name of the list.
fn host_name(extension: &[u8]) -> Option<Box<str>> {
    let mut extension = Bytes(extension);
    let mut names = Bytes(extension.vector()?);
    extension.0.is_empty().then_some(())?;
    (names.take(1)? == [HOST_NAME]).then_some(())?;
    let name = names.vector()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let sound = (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(plain);
    (sound && names.0.is_empty()).then_some(())?;
    let name = str::from_utf8(name).ok()?;
    Some(name.to_ascii_lowercase().into())
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*taken))
    }

    /// As long as its first byte says.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// As long as its first two bytes say.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}
