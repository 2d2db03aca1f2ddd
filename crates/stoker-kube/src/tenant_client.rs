//! A client towards a tenant's API server: one HTTP/2 connection for everything, small enough to
//! keep one per live tenant.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use http::{Request, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
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
use tower::{BoxError, Layer as _, Service, service_fn};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::exchange::{Limits, exchange};
use crate::requests::{Exchange, RequestCounter, verb_and_resource};

/// TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The sender of an answer may be hostile. 100 objects' metadata of ordinary size are some 200 KiB.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(10),
    answer: 16 * 1024 * 1024,
};
/// A dead peer is noticed after this long without traffic, plus the time given for the answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow control: what a tenant's API server can make us hold per watch and in all. Initial values
/// of the HTTP/2 standard; the defaults (2 MiB and 5 MiB) are for downloads.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

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
    let http = HttpClient::builder(TokioExecutor::new())
        .http2_only(true)
        .timer(TokioTimer::new())
        // The connection is in use as long as there are watches, however long ago a request was
        // made; with a limit the next request would open a second one.
        .pool_idle_timeout(None)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector(endpoint)?);
    let service = service_fn(move |request: Request<Body>| {
        let (verb, resource) = verb_and_resource(&request);
        let counter = Arc::clone(&counter);
        counter(verb, resource, Exchange::Sent);
        exchange(http.clone(), request, LIMITS).inspect(move |answer| {
            if let Some(exchange) = Exchange::of(answer) {
                counter(verb, resource, exchange);
            }
        })
    });
    // The host in it goes into `:authority` alone; the connector dials the endpoint's address.
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

/// Dials the endpoint's address whatever the request's, and speaks TLS with HTTP/2 only.
fn connector(
    endpoint: &TenantEndpoint,
) -> Result<impl Connect + Clone + Send + Sync + 'static, Error> {
    let address = endpoint.address;
    let dial = service_fn(move |_: Uri| {
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
        .boxed()
    });
    let name = ServerName::try_from(endpoint.server_name.clone())
        .map_err(|error| unusable("server name", error))?;
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(endpoint)?)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name))
        .enable_http2()
        .wrap_connector(dial);
    Ok(service_fn(move |uri: Uri| {
        let mut https: HttpsConnector<_> = https.clone();
        async move { timeout(CONNECT_TIMEOUT, https.call(uri)).await? }.boxed()
    }))
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
