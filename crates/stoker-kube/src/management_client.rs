//! The client towards the management cluster: one HTTP/2 connection for all requests and watches.
//!
//! kube's own client speaks HTTP/1.1, where every request at the same time is a connection and a
//! TLS handshake of its own: a birth applies 16 objects at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_rustls::{
    FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream,
};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::retry::RetryLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _, service_fn};

use crate::error::Error;
use crate::exchange::{Limits, exchange};
use crate::requests::{CountRequests, RequestCounter, is_watch};
use crate::wire::{Arriving, Dial, Keeping, Wire};

/// TCP and TLS together, when the configuration does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server gives up on a request after a minute.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(90),
    answer: usize::MAX,
};
/// Windows as hyper has them, and how soon a dead API server is noticed.
const KEEPING: Keeping = Keeping {
    windows: (2 * 1024 * 1024, 5 * 1024 * 1024),
    ping_interval: Duration::from_secs(20),
    ping_timeout: Duration::from_secs(20),
};

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
    let connector = connector(&config)?;
    let other = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .build(connector.clone());
    let dial = ManagementDial {
        connector,
        uri: config.cluster_url.clone(),
    };
    let http = Arc::new(Http {
        wire: Wire::new(dial, KEEPING),
        other,
        no_http2: AtomicBool::default(),
    });
    let exchange = service_fn(move |request: Request<Body>| {
        let (http, watches) = (Arc::clone(&http), is_watch(&request));
        exchange(watches, async move { http.send(request).await }, LIMITS)
    });
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

/// HTTP/2 on one connection; a general client where the API server, or what stands before it, does not offer that.
struct Http {
    wire: Wire<ManagementDial>,
    other: HttpClient<Connector, Body>,
    no_http2: AtomicBool,
}

impl Http {
    async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Either<Arriving, Incoming>>, BoxError> {
        if !self.no_http2.load(Ordering::Relaxed) {
            match self.wire.open().await {
                Ok(opened) => return Ok(opened.send(request).await?.map(Either::Left)),
                Err(error) if error.is::<NoHttp2>() => {
                    tracing::info!("the API server does not offer HTTP/2");
                    self.no_http2.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.other.request(request).await?.map(Either::Right))
    }
}

/// The other end speaks HTTP/1.1 alone.
#[derive(Debug, thiserror::Error)]
#[error("the API server does not offer HTTP/2")]
struct NoHttp2;

/// TCP, and TLS where the URI asks for it.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
/// Makes a [`Stream`].
type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

/// Makes the connections for HTTP/2.
struct ManagementDial {
    connector: Connector,
    uri: Uri,
}

impl Dial for ManagementDial {
    type Io = TokioIo<Stream>;

    async fn dial(&self) -> Result<Self::Io, BoxError> {
        let io = self.connector.clone().oneshot(self.uri.clone()).await?;
        if !io.connected().is_negotiated_h2() {
            return Err(NoHttp2.into());
        }
        Ok(TokioIo::new(io))
    }
}

fn connector(config: &Config) -> Result<Connector, kube::Error> {
    let mut dial = HttpConnector::new();
    dial.enforce_http(false);
    dial.set_nodelay(true);
    // For HTTP/1.1, which has no pings.
    dial.set_keepalive(Some(KEEPING.ping_interval));
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
    Ok(BoxCloneSyncService::new(service_fn(move |uri: Uri| {
        let mut https: HttpsConnector<_> = https.clone();
        async move { timeout(limit, https.call(uri)).await? }
    })))
}
