//! One API server of a tenant, by its own address: requests, and streams that it passes on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use stoker_lab::credentials;
use stoker_pki::{Authority, KeyedCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{Tenant, World, text};

/// Where API servers listen.
const PORT: u16 = 6443;
/// A name that all of them have.
const NAME: &str = "kubernetes";
/// What is read of the reason why there is no stream.
const LONGEST_REASON: usize = 4096;

/// An API server's address, and what opens it.
pub(crate) struct Door {
    pub(crate) client: Client,
    address: SocketAddr,
    tls: TlsConnector,
}

/// Bytes to a pod and back.
pub(crate) type Stream = TlsStream<TcpStream>;

/// The authority of a tenant, with its key.
pub(crate) async fn authority(world: &World, tenant: &str) -> Result<Authority> {
    let secret = world.secrets(tenant).get(&format!("{tenant}-ca")).await?;
    let (certificate, key) = (text(&secret, "ca.crt")?, text(&secret, "ca.key")?);
    Authority::from_pem(&certificate, &key).context("reading the tenant's authority")
}

/// TLS 1.3 as somebody, or as nobody, to whom an authority stands behind.
pub(crate) fn tls(ca: &str, who: Option<&KeyedCertificate>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some(who) = who else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::from_pem_slice(who.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(who.key.as_pem().as_bytes())?;
    Ok(builder.with_client_auth_cert(vec![chain], key)?)
}

impl Door {
    /// Of the API server at this address.
    pub(crate) async fn at(world: &World, tenant: &Tenant, address: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(address, PORT);
        let authority = authority(world, &tenant.name).await?;
        let admin = credentials::client(&authority, "e2e", Some("system:masters"))?;
        let kubeconfig = Kubeconfig::from_yaml(&tenant.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.cluster_url = format!("https://{address}").parse()?;
        config.tls_server_name = Some(NAME.to_owned());
        config.default_retry = false;
        Ok(Self {
            client: Client::try_from(config)?,
            address,
            tls: TlsConnector::from(Arc::new(tls(authority.certificate(), Some(&admin))?)),
        })
    }

    /// What it answers to a GET.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        get(&self.client, path).await
    }

    /// A stream that it passes on to where the path leads, by any protocol.
    pub(crate) async fn upgraded(&self, path: &str, protocol: &str) -> Result<Stream> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(NAME)?;
        let mut stream = self.tls.connect(name, socket).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await;
            head.push(byte.context("the connection ended before its answer")?);
        }
        let head = String::from_utf8_lossy(&head);
        let line = head.lines().next().unwrap_or_default();
        if !line.contains(" 101 ") {
            let mut lengths = head.lines().filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse().ok())?
            });
            let length: usize = lengths.next().unwrap_or_default();
            let mut why = vec![0; length.min(LONGEST_REASON)];
            stream.read_exact(&mut why).await?;
            bail!("no stream: {line}: {}", String::from_utf8_lossy(&why));
        }
        Ok(stream)
    }
}

/// A line there and back.
pub(crate) async fn echoes(stream: &mut Stream, line: &str) -> Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).await?;
    ensure!(back == line.as_bytes(), "something else came back");
    Ok(())
}

pub(crate) async fn get(client: &Client, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?)
}

/// Sends an object by POST, or replaces the status of one by PATCH.
pub(crate) async fn send(
    client: &Client,
    method: http::Method,
    path: &str,
    object: &Value,
) -> Result<Value> {
    let kind = match method {
        http::Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(serde_json::to_vec(object)?)?;
    Ok(client.request(request).await?)
}
