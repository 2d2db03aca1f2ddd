//! A client towards a tenant's API server: one HTTP/2 connection for everything, small enough to
//! keep one per live tenant.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use http::{Request, Uri};
use kube::Client;
use kube::client::Body;
use kube::client::middleware::BaseUriLayer;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, Layer as _, service_fn};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::exchange::{Limits, exchange};
use crate::requests::{Exchange, RequestCounter, is_watch, verb_and_resource};
use crate::wire::{Dial, Keeping, Wire};

/// TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The sender of an answer may be hostile. 100 objects' metadata of ordinary size are some 200 KiB.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(10),
    answer: 16 * 1024 * 1024,
};
/// What a tenant's API server can make us hold per watch and in all; and how soon a dead one is noticed.
const KEEPING: Keeping = Keeping {
    windows: (64 * 1024, 256 * 1024),
    ping_interval: Duration::from_secs(20),
    ping_timeout: Duration::from_secs(10),
};

/// How to reach a tenant's API server and how to prove who we are.
pub struct TenantEndpoint {
    /// The address dialled.
    pub address: SocketAddr,
    /// The name or IP address that the server's certificate must be for.
    pub server_name: String,
    /// PEM of the authority that signed the server's certificate.
    pub certificate_authority: String,
    /// PEM of our certificate, with its chain.
    pub client_certificate: String,
    /// PEM of our key.
    pub client_key: Zeroizing<String>,
}

/// Makes a client; it connects when first used and again after the connection broke. All requests
/// and watches share one connection. Nothing is sent a second time by itself, except what had not
/// been sent at all. `counter` is told of each request.
///
/// # Errors
/// [`Error::MakeTenantClient`] when the name or a PEM text is unusable.
pub fn tenant_client(endpoint: &TenantEndpoint, counter: RequestCounter) -> Result<Client, Error> {
    let wire = Arc::new(Wire::new(TenantDial::new(endpoint)?, KEEPING));
    let service = service_fn(move |request: Request<Body>| {
        let (verb, resource) = verb_and_resource(&request);
        let counter = Arc::clone(&counter);
        counter(verb, resource, Exchange::Sent);
        let (wire, watches) = (Arc::clone(&wire), is_watch(&request));
        let answered = async move { wire.open().await?.send(request).await };
        exchange(watches, answered, LIMITS).inspect(move |answer| {
            if let Some(exchange) = Exchange::of(answer) {
                counter(verb, resource, exchange);
            }
        })
    });
    // The host in it goes into `:authority` alone.
    let authority = endpoint.address.to_string();
    let uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(|error| unusable("address", error))?;
    Ok(Client::new(
        BaseUriLayer::new(uri).layer(service),
        "default",
    ))
}

/// Dials the endpoint's address, and speaks TLS with HTTP/2 only.
struct TenantDial {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl TenantDial {
    fn new(endpoint: &TenantEndpoint) -> Result<Self, Error> {
        let name = ServerName::try_from(endpoint.server_name.clone())
            .map_err(|error| unusable("server name", error))?;
        let mut config = tls_config(endpoint)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: endpoint.address,
            name,
            tls: Arc::new(config).into(),
        })
    }
}

impl Dial for TenantDial {
    type Io = TlsStream<TcpStream>;

    async fn dial(&self) -> Result<Self::Io, BoxError> {
        let dialled = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(self.name.clone(), stream).await
        };
        Ok(timeout(CONNECT_TIMEOUT, dialled).await??)
    }
}

fn tls_config(endpoint: &TenantEndpoint) -> Result<ClientConfig, Error> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()));
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", &endpoint.certificate_authority)? {
        roots
            .add(certificate)
            .map_err(|error| unusable("CA certificate", error))?;
    }
    let chain = certificates("client certificate", &endpoint.client_certificate)?;
    let key = PrivateKeyDer::from_pem_slice(endpoint.client_key.as_bytes())
        .map_err(|error| unusable("client key", error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS configuration", error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("client certificate", error))?;
    // One connection that lasts has nothing to resume; the session cache is memory per tenant.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(what, error))?;
    if found.is_empty() {
        return Err(unusable(what, "there is no certificate in it"));
    }
    Ok(found)
}

fn unusable(what: &'static str, source: impl Into<BoxError>) -> Error {
    Error::MakeTenantClient {
        what,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
