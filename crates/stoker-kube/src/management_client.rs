//! The client towards the management cluster: one HTTP/2 connection for all requests and watches.
//!
//! kube's own client speaks HTTP/1.1, where every request at the same time is a connection and a
//! TLS handshake of its own: a birth applies 16 objects at once.

use std::time::Duration;

use futures::FutureExt as _;
use http::{Request, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder, service_fn};

use crate::error::Error;
use crate::exchange::{Limits, exchange};
use crate::requests::{CountRequests, RequestCounter};

/// TCP and TLS together, when the configuration does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server gives up on a request after a minute.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(90),
    answer: usize::MAX,
};
/// A dead peer is noticed after this long without traffic, plus the time given for the answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A client for the management cluster that tells `counter` of each request. Requests refused with
/// 429, 503 or 504 are sent again with backoff and counted once. An API server that does not offer
/// HTTP/2 is spoken to in HTTP/1.1.
///
/// # Errors
/// [`Error::MakeClient`] when the configuration's certificates, keys or proxy are unusable.
pub fn management_client(config: Config, counter: RequestCounter) -> Result<Client, Error> {
    make(config, counter).map_err(|source| Error::MakeClient {
        source: Box::new(source),
    })
}

fn make(config: Config, counter: RequestCounter) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // kube knows what it was built to do with proxies, and says so.
        let builder = ClientBuilder::try_from(config)?;
        return Ok(builder.with_layer(&CountRequests::new(counter)).build());
    }
    let http = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        // The connection is in use as long as there are watches, however long ago a request was
        // made; with a limit the next request would open a second one.
        .pool_idle_timeout(None)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector(&config)?);
    let exchange =
        service_fn(move |request: Request<Body>| exchange(http.clone(), request, LIMITS));
    let service = ServiceBuilder::new()
        .layer(CountRequests::new(counter))
        .layer(config.base_uri_layer())
        .option_layer(
            config
                .default_retry
                .then(|| RetryLayer::new(RetryPolicy::server_retry())),
        )
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(exchange);
    Ok(Client::new(service, config.default_namespace))
}

fn connector(config: &Config) -> Result<impl Connect + Clone + Send + Sync + 'static, kube::Error> {
    let mut dial = HttpConnector::new();
    dial.enforce_http(false);
    dial.set_nodelay(true);
    // For HTTP/1.1, which has no pings.
    dial.set_keepalive(Some(PING_INTERVAL));
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|error| kube::Error::Service(Box::new(error)))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let https = builder.enable_http1().enable_http2().wrap_connector(dial);
    let limit = config.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    Ok(service_fn(move |uri: Uri| {
        let mut https: HttpsConnector<_> = https.clone();
        async move { timeout(limit, https.call(uri)).await? }.boxed()
    }))
}
