//! What a gateway is told before the client's own bytes: a header of the PROXY protocol, version 2 (haproxy's
//! `doc/proxy-protocol.txt`), that names the tenant and nobody else. Gateways believe it as little as they believe the name in a
//! `ClientHello`: it says where to, not who.

/// Signature; version 2, command PROXY; no addresses.
const BEGIN: &[u8; 14] = b"\r\n\r\n\0\r\nQUIT\n\x21\0";
/// `PP2_TYPE_AUTHORITY`.
const AUTHORITY: u8 = 2;

/// The header that names `name`, a DNS name.
pub(super) fn naming(name: &str) -> Vec<u8> {
    // DNS names have at most 253 bytes.
    let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let fields = u16::from(length) + 3;
    let mut header = BEGIN.to_vec();
    header.extend(fields.to_be_bytes());
    header.extend([AUTHORITY, 0, length]);
    header.extend(name);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_read_the_name() {
        let header = naming("0123.clusters.example.com");
        let read = stoker_gateway::proxy_protocol::read(&header);
        let read = read.unwrap().unwrap();
        assert_eq!(read.length, header.len());
        assert_eq!(read.ends, None);
        assert_eq!(read.authority.as_deref(), Some("0123.clusters.example.com"));
    }
}
