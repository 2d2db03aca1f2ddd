//! Being someone else: certificates that are not the tenant's, tokens, passwords, other ways in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use etcd_client::Client;
use http::uri::PathAndQuery;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use stoker_lab::credentials;
use stoker_pki::{Authority, KeyedCertificate, LeafRequest, LeafUsage};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::clients::{channel, client};
use super::cluster::Cluster;
use super::world::World;

/// What came of a try to be someone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The TLS handshake or connection failed.
    NoConnection(String),
    /// etcd answered that it is not permitted, or that it does not know who asks.
    Refused(String),
    /// The keys came.
    Served,
}

impl Outcome {
    fn of<T>(answer: Result<T, etcd_client::Error>) -> Self {
        match answer {
            Ok(_) => Self::Served,
            Err(etcd_client::Error::GRpcStatus(status)) => Self::of_status(&status),
            Err(error) => Self::NoConnection(error.to_string()),
        }
    }

    fn of_status(status: &tonic::Status) -> Self {
        let message = status.message().to_owned();
        if message.starts_with("etcdserver: ") || message.starts_with("auth: ") {
            Self::Refused(message)
        } else {
            Self::NoConnection(message)
        }
    }
}

/// Tries to read with a certificate: the attacker's own key, and the victim's.
struct Certificates<'cluster> {
    cluster: &'cluster Cluster,
    address: String,
    world: World,
}

/// Every certificate that is not the tenant's own, with what came of it.
pub(crate) async fn with_certificates(
    cluster: &Cluster,
    world: &World,
) -> Result<Vec<(String, Outcome)>> {
    let address = cluster.addresses()[0].clone();
    let tries = Certificates {
        cluster,
        address,
        world: world.clone(),
    };
    let stranger = credentials::authority("stranger")?;
    let own = world.tenant_id.user();
    let now = OffsetDateTime::now_utc();
    let day = time::Duration::days(1);
    let ours = cluster.authority();
    let mut outcomes = Vec::new();
    let mut push = |name: &str, outcome| outcomes.push((name.to_owned(), outcome));

    push("no certificate", tries.read(None).await?);
    for name in [own, "root"] {
        let leaf = credentials::client(&stranger, name, None)?;
        let who = if name == own { "own name" } else { "root" };
        push(
            &format!("{who}, signed by another CA"),
            tries.read(Some(&leaf)).await?,
        );
    }
    for name in [
        "nobody",
        "",
        "ROOT",
        "root ",
        &own[1..],
        &format!("/{own}/"),
        &own.to_uppercase(),
    ] {
        let leaf = issue(ours, name, LeafUsage::Client, &[], now)?;
        push(
            &format!("common name {name:?}"),
            tries.read(Some(&leaf)).await?,
        );
    }
    let leaf = issue(ours, "", LeafUsage::Client, &[own, "root"], now)?;
    push(
        "own name and root as DNS names only",
        tries.read(Some(&leaf)).await?,
    );
    let leaf = issue(ours, own, LeafUsage::Client, &[], now - 2 * day)?;
    push("expired", tries.read(Some(&leaf)).await?);
    let leaf = issue(ours, own, LeafUsage::Client, &[], now + day)?;
    push("not valid yet", tries.read(Some(&leaf)).await?);
    let leaf = issue(ours, own, LeafUsage::Server, &[], now)?;
    push(
        "serving certificate with own name",
        tries.read(Some(&leaf)).await?,
    );
    let own_leaf = credentials::client(ours, own, None)?;
    for name in ["root", world.victim_id.user()] {
        let leaf = signed_by_leaf(&own_leaf, name)?;
        let who = if name == "root" { "root" } else { "the victim" };
        push(
            &format!("{who}, signed with the own leaf"),
            tries.read(Some(&leaf)).await?,
        );
    }
    let leaf = credentials::client(ours, world.victim_id.user(), None)?;
    push(
        "the victim's certificate on own keys",
        tries.read(Some(&leaf)).await?,
    );
    Ok(outcomes)
}

impl Certificates<'_> {
    async fn read(&self, leaf: Option<&KeyedCertificate>) -> Result<Outcome> {
        let mut client = client(&self.address, self.cluster.authority(), leaf).await?;
        Ok(Outcome::of(client.get(self.world.own("key"), None).await))
    }
}

fn issue(
    authority: &Authority,
    name: &str,
    usage: LeafUsage,
    dns_names: &[&str],
    now: OffsetDateTime,
) -> Result<KeyedCertificate> {
    let request = LeafRequest {
        common_name: name.to_owned(),
        organizations: Vec::new(),
        usage,
        dns_names: dns_names.iter().map(|&name| name.to_owned()).collect(),
        ip_addresses: Vec::new(),
        lifetime: time::Duration::hours(1),
    };
    Ok(authority.issue(&request, now)?)
}

/// A leaf is no authority, whatever it signs.
fn signed_by_leaf(leaf: &KeyedCertificate, name: &str) -> Result<KeyedCertificate> {
    let issuer =
        Issuer::from_ca_cert_pem(&leaf.certificate, KeyPair::from_pem(leaf.key.as_pem())?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let forged = params.signed_by(&key, &issuer)?.pem();
    Ok(KeyedCertificate {
        certificate: format!("{forged}{}", leaf.certificate),
        key: stoker_pki::PrivateKey::from_pem(&key.serialize_pem())?,
    })
}

/// Ways in that do without a certificate of someone else.
pub(crate) async fn with_other_means(
    cluster: &Cluster,
    world: &World,
) -> Result<Vec<(String, Outcome)>> {
    let address = &cluster.addresses()[0];
    let own = credentials::client(cluster.authority(), world.tenant_id.user(), None)?;
    let mut outcomes = Vec::new();
    for (name, user) in [("root", "root"), ("the victim", world.victim_id.user())] {
        for password in ["", "root", user] {
            let mut auth = world.tenant.auth_client();
            let answer = auth
                .authenticate(user.to_owned(), password.to_owned())
                .await;
            outcomes.push((
                format!("log in as {name}, password {password:?}"),
                Outcome::of(answer),
            ));
        }
    }
    let channel = channel(address, cluster.authority(), Some(&own))?;
    for token in [
        "x",
        "abcdefghijklmnop.1",
        "abcdefghijklmnop.999999",
        "root",
        "Bearer x",
    ] {
        let outcome = with_token(channel.clone(), &world.foreign("secret"), token).await?;
        outcomes.push((format!("token {token:?}"), outcome));
    }
    for (name, key) in [
        ("own key", world.own("key")),
        ("the victim's key", world.foreign("secret")),
    ] {
        for path in ["/v3/kv/range", "/v3/watch"] {
            let outcome = through_gateway(cluster, address, Some(&own), path, &key).await?;
            outcomes.push((format!("HTTP gateway {path}, {name}"), outcome));
        }
    }
    // The gateway asks etcd with etcd's own certificate; a name in that one must not count.
    let nameless = issue(
        cluster.authority(),
        "",
        LeafUsage::Client,
        &[],
        OffsetDateTime::now_utc(),
    )?;
    for path in ["/v3/kv/range", "/v3/watch"] {
        let key = world.foreign("secret");
        let outcome = through_gateway(cluster, address, Some(&nameless), path, &key).await?;
        outcomes.push((
            format!("HTTP gateway {path}, certificate without name"),
            outcome,
        ));
    }
    let outcome = through_gateway(cluster, address, None, "/v3/kv/range", &world.own("key")).await;
    let outcome = outcome.unwrap_or_else(|error| Outcome::NoConnection(error.to_string()));
    outcomes.push(("HTTP gateway, no certificate".into(), outcome));
    outcomes.push((
        "no TLS at all".into(),
        without_tls(address, &world.own("key")).await?,
    ));
    Ok(outcomes)
}

async fn without_tls(address: &str, key: &str) -> Result<Outcome> {
    let plain = Endpoint::from_shared(format!("http://{address}"))?.timeout(Duration::from_secs(5));
    let raw = etcd_client::Channel::Tonic(plain.connect_lazy());
    let mut client = Client::from_channel(raw, None).await?;
    Ok(Outcome::of(client.get(key, None).await))
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

/// A token goes before the certificate's name: etcd must not take one that it did not give.
async fn with_token(channel: Channel, key: &str, token: &str) -> Result<Outcome> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let mut request = tonic::Request::new(RangeRequest { key: key.into() });
    request.metadata_mut().insert("token", token.parse()?);
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let answer = grpc.unary(request, path, codec).await;
    Ok(Outcome::of(answer.map_err(etcd_client::Error::from)))
}

/// JSON over HTTP/1.1, which etcd passes on to itself.
async fn through_gateway(
    cluster: &Cluster,
    address: &str,
    leaf: Option<&KeyedCertificate>,
    path: &str,
    key: &str,
) -> Result<Outcome> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let config = Arc::new(tls_config(cluster.authority(), leaf)?);
    let name = ServerName::try_from("localhost")?;
    let mut tls = TlsConnector::from(config).connect(name, stream).await?;
    let key = BASE64.encode(key);
    let body = if path.ends_with("watch") {
        format!(r#"{{"create_request":{{"key":"{key}"}}}}"#)
    } else {
        format!(r#"{{"key":"{key}"}}"#)
    };
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tls.write_all(request.as_bytes()).await?;
    let answer = read_all(&mut tls).await;
    ensure!(!answer.is_empty(), "the connection was closed");
    let refused = [
        "permission denied",
        "user name is empty",
        "CommonName of client",
    ];
    let refusal = answer
        .lines()
        .find(|line| refused.iter().any(|text| line.contains(text)));
    Ok(match refusal {
        Some(line) => Outcome::Refused(line.to_owned()),
        None => Outcome::Served,
    })
}

/// What comes within a second: a watch does not end by itself.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let all = stream.read_to_end(&mut answer);
    // What was read before the time was up is in the buffer.
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn tls_config(
    authority: &Authority,
    leaf: Option<&KeyedCertificate>,
) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        authority.certificate().as_bytes(),
    )?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match leaf {
        None => config.with_no_client_auth(),
        Some(leaf) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes())?,
        )?,
    })
}
