//! `/livez`, `/readyz` and `/metrics` of the tunnel, where somebody wants them.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::shared_port;
use crate::tunnel::Metrics;

/// Connections at a time, and for how long one may last: a probe and a scrape say at once what they want. Whoever reaches the pod
/// may hold one without a word.
const CONNECTIONS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 128;
/// When no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at `address`; one at `[::]` takes IPv4 too, and IPv4 alone where there is no IPv6. Only where it is `shared` may another
/// process do so too.
///
/// # Errors
/// The address is taken, or not of this machine.
pub async fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    match bind(address, shared).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            let any = Ipv4Addr::UNSPECIFIED.into();
            bind(SocketAddr::new(any, address.port()), shared).await
        }
        bound => bound,
    }
}

async fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    if shared {
        shared_port::listen(address, BACKLOG)
    } else {
        TcpListener::bind(address).await
    }
}

/// Answers as long as it is polled.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(place) = free.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own business.
            let _ = timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

/// Ready is who has a connection to a server.
fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match request.uri().path() {
        "/livez" => plain(StatusCode::OK, "ok"),
        "/readyz" if metrics.is_connected() => plain(StatusCode::OK, "ok"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "no connection to a server"),
        "/metrics" => {
            let Ok(text) = metrics.render() else {
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
            };
            let mut response = Response::new(Full::from(text));
            let kind = HeaderValue::from_static(TEXT);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "not found"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
