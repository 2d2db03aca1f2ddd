use std::sync::Arc;
use std::time::Duration as StdDuration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, RootCertStore,
    ServerConfig, ServerConnection,
};
use stoker_pki::{Authority, KeyedCertificate, LeafRequest, LeafUsage};
use time::{Duration, OffsetDateTime};

use crate::{YEAR, authority, client_request, fixture, now, server_request};

#[derive(Debug)]
struct At(OffsetDateTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.unix_timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(StdDuration::from_secs(seconds)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap())
        .unwrap();
    Arc::new(roots)
}

fn identity(leaf: &KeyedCertificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    (
        CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
            .map(Result::unwrap)
            .collect(),
        PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes()).unwrap(),
    )
}

/// One end of a handshake: whom it trusts and who it is.
struct End<'a> {
    trusts: &'a Authority,
    leaf: &'a KeyedCertificate,
}

fn client(end: &End<'_>, server_name: &str, at: OffsetDateTime) -> ClientConnection {
    let (chain, key) = identity(end.leaf);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(end.trusts), provider());
    let config = ClientConfig::builder_with_details(provider(), Arc::new(At(at)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap())
        .with_client_auth_cert(chain, key)
        .unwrap();
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn server(end: &End<'_>, at: OffsetDateTime) -> ServerConnection {
    let (chain, key) = identity(end.leaf);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(end.trusts), provider());
    let config = ServerConfig::builder_with_details(provider(), Arc::new(At(at)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    ServerConnection::new(Arc::new(config)).unwrap()
}

/// Carries bytes between the two until both are done, or to the first error.
fn handshake(client: ClientConnection, server: ServerConnection) -> Result<(), Error> {
    let (mut client, mut server) = (Connection::from(client), Connection::from(server));
    for _ in 0..20 {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn connect(
    authority: &Authority,
    requests: (&LeafRequest, &LeafRequest),
    server_name: &str,
    at: OffsetDateTime,
) -> Result<(), Error> {
    let server_leaf = authority.issue(requests.0, now()).unwrap();
    let client_leaf = authority.issue(requests.1, now()).unwrap();
    handshake(
        client(
            &End {
                trusts: authority,
                leaf: &client_leaf,
            },
            server_name,
            at,
        ),
        server(
            &End {
                trusts: authority,
                leaf: &server_leaf,
            },
            at,
        ),
    )
}

#[test]
fn both_ends_accept_each_other_by_every_name() {
    for name in [
        "api.example.com",
        "kubernetes.default.svc",
        "10.96.0.1",
        "fd00::1",
    ] {
        let requests = (&server_request(), &client_request());
        connect(&authority(), requests, name, now())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn leaves_of_a_customers_authority_are_accepted() {
    for (certificate, key) in [
        ("rsa.crt", "rsa-pkcs1.key"),
        ("p256.crt", "p256-sec1.key"),
        ("p384.crt", "p384-sec1.key"),
        ("ed25519.crt", "ed25519-pkcs8.key"),
    ] {
        let authority = Authority::from_pem(&fixture(certificate), &fixture(key)).unwrap();
        connect(
            &authority,
            (&server_request(), &client_request()),
            "api.example.com",
            now(),
        )
        .unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[test]
fn another_name_is_refused() {
    for name in ["other.example.com", "10.96.0.2", "example.com"] {
        let error = connect(
            &authority(),
            (&server_request(), &client_request()),
            name,
            now(),
        )
        .unwrap_err();
        let Error::InvalidCertificate(reason) = &error else {
            panic!("{name}: {error}")
        };
        assert!(
            matches!(reason, CertificateError::NotValidForNameContext { .. }),
            "{error}"
        );
    }
}

/// Both authorities have the same name, as two tenants' do.
#[test]
fn a_leaf_of_another_authority_is_refused_by_either_end() {
    let (ours, theirs) = (authority(), authority());
    let our_server = ours.issue(&server_request(), now()).unwrap();
    let our_client = ours.issue(&client_request(), now()).unwrap();
    let their_server = theirs.issue(&server_request(), now()).unwrap();
    let their_client = theirs.issue(&client_request(), now()).unwrap();
    let refused = |client_leaf, server_leaf| {
        let client = client(
            &End {
                trusts: &ours,
                leaf: client_leaf,
            },
            "api.example.com",
            now(),
        );
        let server = server(
            &End {
                trusts: &ours,
                leaf: server_leaf,
            },
            now(),
        );
        let error = handshake(client, server).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    };
    refused(&our_client, &their_server);
    refused(&their_client, &our_server);
}

#[test]
fn a_leaf_for_the_other_usage_is_refused() {
    let as_client = LeafRequest {
        usage: LeafUsage::Client,
        ..server_request()
    };
    let as_server = LeafRequest {
        usage: LeafUsage::Server,
        ..client_request()
    };
    for requests in [
        (&as_client, &client_request()),
        (&server_request(), &as_server),
    ] {
        let error = connect(&authority(), requests, "api.example.com", now()).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    }
    let both = LeafRequest {
        usage: LeafUsage::ServerAndClient,
        ..server_request()
    };
    connect(&authority(), (&both, &both), "api.example.com", now()).unwrap();
}

#[test]
fn a_leaf_is_accepted_from_five_minutes_before_its_issue_to_its_end() {
    let requests = (&server_request(), &client_request());
    let at = |at| connect(&authority(), requests, "api.example.com", at);
    at(now() - Duration::minutes(5)).unwrap();
    at(now() + YEAR - Duration::SECOND).unwrap();
    assert!(at(now() - Duration::minutes(6)).is_err());
    assert!(at(now() + YEAR + Duration::SECOND).is_err());
}

/// Who knows one authority alone believes what its successor has signed by the link, and by nothing else.
#[test]
fn a_link_leads_from_an_authority_to_its_successor() {
    for (certificate, key) in [
        ("rsa.crt", "rsa-pkcs8.key"),
        ("p384.crt", "p384-sec1.key"),
        ("ed25519.crt", "ed25519-pkcs8.key"),
    ] {
        let old = Authority::from_pem(&fixture(certificate), &fixture(key)).unwrap();
        leads(&old, now());
    }
    // One name for both: only the keys tell them apart.
    leads(&authority(), now());
}

fn leads(old: &Authority, at: OffsetDateTime) {
    let (new, link) = old.successor("kubernetes", 10 * YEAR, at).unwrap();
    let (serving, asking) = (server_request(), client_request());
    let connect = |linked: bool, trusts: &Authority| {
        let of_new = |request: &LeafRequest| {
            let mut leaf = new.issue(request, at).unwrap();
            if linked {
                leaf.certificate.push_str(&link);
            }
            leaf
        };
        let (server_leaf, client_leaf) = (of_new(&serving), of_new(&asking));
        let [server_end, client_end] =
            [&server_leaf, &client_leaf].map(|leaf| End { trusts, leaf });
        handshake(
            client(&client_end, &serving.dns_names[0], at),
            server(&server_end, at),
        )
    };
    connect(true, old).unwrap();
    connect(true, &new).unwrap();
    connect(false, &new).unwrap();
    connect(false, old).unwrap_err();
    connect(true, &authority()).unwrap_err();
    let end = stoker_pki::not_after(&link).unwrap();
    assert_eq!(end, old.not_after().min(new.not_after()));
}

#[test]
fn an_authority_that_has_expired_vouches_for_no_successor() {
    let old = authority();
    let refused = old.successor("kubernetes", YEAR, old.not_after());
    assert!(matches!(
        refused,
        Err(stoker_pki::Error::AuthorityExpired { .. })
    ));
}
