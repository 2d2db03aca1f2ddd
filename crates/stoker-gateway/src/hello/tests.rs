//! Hellos as clients send them, and everything else.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

const NAME: &str = "0123456789abcdef0123456789abcdef.clusters.example.com";

/// What a rustls client sends first.
fn hello_of(name: &str, protocols: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

/// A hello with these extensions.
fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (number, content) in extensions {
        list.extend(number.to_be_bytes());
        list.extend(vector(content));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(vector(&list));
    records(&message(1, &body), LARGEST_RECORD)
}

fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&length, content].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector(part)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn server_name(name: &str) -> (u16, Vec<u8>) {
    (0, vector(&[&[0][..], &vector(name.as_bytes())].concat()))
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, Invalid> {
    HelloReader::default().push(bytes)
}

#[expect(clippy::unnecessary_wraps, reason = "as it is compared")]
fn named(name: &str) -> Result<Option<ClientHello>, Invalid> {
    let server_name = Some(name.into());
    Ok(Some(ClientHello {
        server_name,
        tunnel: false,
    }))
}

#[test]
fn the_name_is_read_whatever_else_is_offered() {
    assert_eq!(read(&hello_of(NAME, &[])), named(NAME));
    assert_eq!(read(&hello_of(NAME, &["h2", "http/1.1"])), named(NAME));
    assert_eq!(read(&hello_of(&NAME.to_uppercase(), &[])), named(NAME));
}

#[test]
fn the_tunnel_is_told_from_clients_of_the_api_server() {
    let tunnel = |protocols: &[&str]| read(&hello_of(NAME, protocols)).unwrap().unwrap().tunnel;
    assert!(tunnel(&["stoker-tunnel/1"]) && tunnel(&["stoker-tunnel/2", "stoker-tunnel/1"]));
    assert!(!tunnel(&["h2", "http/1.1"]) && !tunnel(&["tunnel"]) && !tunnel(&[]));
}

#[test]
fn who_dials_an_address_names_nobody() {
    let nobody = Ok(Some(ClientHello {
        server_name: None,
        tunnel: false,
    }));
    assert_eq!(read(&hello_of("192.0.2.1", &["h2"])), nobody);
    let mut body = vec![3, 1];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0, 5, 1, 0]);
    let without_extensions = records(&message(1, &body), 100);
    assert_eq!(read(&without_extensions), nobody);
}

#[test]
fn of_an_encrypted_hello_the_public_name_counts() {
    const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    let inner = hello_of("inner.example.com", &[]);
    let hello = hello_with(&[
        (ENCRYPTED_CLIENT_HELLO, inner),
        server_name("outer.example.com"),
    ]);
    assert_eq!(read(&hello), named("outer.example.com"));
}

#[test]
fn a_name_that_could_be_read_two_ways_is_refused() {
    let twice = [server_name("a.example"), server_name("b.example")];
    let two = [&[0][..], &vector(b"a"), &[0], &vector(b"b")].concat();
    let lists = [
        hello_with(&twice),
        hello_with(&[(0, vector(&two))]),
        hello_with(&[(0, vector(&[]))]),
        hello_with(&[server_name("")]),
        hello_with(&[server_name("a\0b")]),
        hello_with(&[server_name(&"a".repeat(254))]),
        hello_with(&[(0, vector(&[&[1][..], &vector(b"a")].concat()))]),
    ];
    for hello in lists {
        assert_eq!(read(&hello), Err(Invalid::Broken));
    }
    assert_eq!(
        read(&hello_with(&[server_name(&"a".repeat(253))])),
        named(&"a".repeat(253))
    );
}

#[test]
fn what_is_not_tls_is_told_from_its_first_bytes() {
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4",
        b"SSH-2.0-x",
        b"\x16\x02",
        b"\0",
        b"\x80\x2e\x01",
    ];
    for bytes in garbage {
        assert_eq!(read(bytes), Err(Invalid::NotTls), "{bytes:?}");
    }
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[HANDSHAKE]), Ok(None));
}

#[test]
fn records_that_are_none_are_refused() {
    let empty = [HANDSHAKE, 3, 1, 0, 0];
    let too_long = [HANDSHAKE, 3, 1, 0x40, 1];
    let server_hello = [HANDSHAKE, 3, 3, 0, 90, 2];
    let mut data_between = records(&hello_of(NAME, &[])[RECORD_HEADER..], 50);
    data_between[55] = 23;
    for bytes in [&empty[..], &too_long, &server_hello, &data_between] {
        assert_eq!(read(bytes), Err(Invalid::Broken));
    }
}

#[test]
fn one_that_never_ends_is_refused_at_the_limit() {
    let claims_too_much = records(&message(1, &vec![0; LARGEST_HELLO + 1])[..100], 100);
    assert_eq!(read(&claims_too_much), Err(Invalid::TooLarge));
    let mut reader = HelloReader::default();
    let endless = records(&message(1, &vec![0; LARGEST_HELLO]), 10);
    let mut fed = endless
        .chunks(100)
        .map(|part| reader.push(&part[..part.len().min(100)]));
    assert!(fed.any(|read| read == Err(Invalid::TooLarge)));
    assert!(reader.into_received().len() <= LARGEST_HELLO + 100);
}

#[test]
fn an_alert_is_what_tls_clients_read() {
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "a".try_into().unwrap()).unwrap();
    let record = Alert::UnrecognizedName.record();
    client.read_tls(&mut &record[..]).unwrap();
    let said = client.process_new_packets().unwrap_err();
    assert_eq!(
        said,
        rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName)
    );
}

/// The hello that a whole TLS stack reads, `None` where it refuses.
fn by_rustls(bytes: &[u8]) -> Option<ClientHello> {
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut &bytes[..]).ok()?;
    let accepted = acceptor.accept().ok()??;
    let hello = accepted.client_hello();
    let server_name = hello.server_name().map(|name| name.to_lowercase().into());
    let mut protocols = hello.alpn().into_iter().flatten();
    Some(ClientHello {
        server_name,
        tunnel: protocols.any(|name| name.starts_with(TUNNEL)),
    })
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(sizes in prop::collection::vec(1usize..400, 1..40), record in 1usize..600) {
        let sent = hello_of(NAME, &["h2"]);
        let bytes = [records(&sent[RECORD_HEADER..], record), b"early data".to_vec()].concat();
        let mut reader = HelloReader::default();
        let (mut at, mut found) = (0, None);
        for size in sizes.iter().cycle() {
            let end = (at + size).min(bytes.len());
            found = reader.push(&bytes[at..end]).unwrap();
            at = end;
            if found.is_some() || at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(Ok(found), named(NAME));
        prop_assert_eq!(reader.into_received(), &bytes[..at]);
    }

    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = read(&records(&message(1, &bytes), 100));
    }

    #[test]
    fn a_damaged_hello_is_never_read_as_another_name_than_a_tls_stack_reads(
        damage in prop::collection::vec((0usize..260, any::<u8>()), 1..4),
    ) {
        let mut bytes = hello_of("one.example.com", &["h2", "stoker-tunnel/1"]);
        for (at, byte) in damage {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        if let (Ok(Some(hello)), Some(other)) = (read(&bytes), by_rustls(&bytes)) {
            prop_assert_eq!(hello, other);
        }
    }
}
