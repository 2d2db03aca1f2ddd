//! The TLS listener. Each accepted connection is a task that ends when its client has been silent for too long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::TENANTS;
use super::review::Reviewer;
use super::serving::Serving;

/// Bytes of a review: an object and what it was before, each at most what etcd takes (1.5 MiB), as JSON.
const LARGEST_REVIEW: usize = 8 << 20;
/// Connections at a time. An API server opens one per review under way, and keeps 25.
const CONNECTIONS: usize = 256;
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time for the head of the next request, and so for silence between two; an API server opens another connection then.
const HEAD: Duration = Duration::from_secs(30);
/// Time for the body of a request.
const BODY: Duration = Duration::from_secs(5);
/// Bodies that are read and kept at a time, so that they take 128 MiB at most.
const BODIES: usize = 16;
/// When no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

type Reply = Response<Full<Bytes>>;

/// Answers API servers.
///
/// # Errors
/// The address cannot be listened on.
pub(super) async fn serve(
    address: SocketAddr,
    serving: Arc<Serving>,
    reviewer: Arc<Reviewer>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("webhook server: listening on {address}"))?;
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(serving);
    let tls = TlsAcceptor::from(Arc::new(tls));
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let bodies = Arc::new(Semaphore::new(BODIES));
    loop {
        let place = free.clone().acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (tls, reviewer, bodies) = (tls.clone(), Arc::clone(&reviewer), Arc::clone(&bodies));
        tokio::spawn(async move {
            connection(stream, &tls, &reviewer, &bodies).await;
            drop(place);
        });
    }
}

/// What goes wrong here is the client's business, which says so.
async fn connection(stream: TcpStream, tls: &TlsAcceptor, reviewer: &Reviewer, bodies: &Semaphore) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else {
        return;
    };
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(reply(request, reviewer, bodies).await) });
    // Without a timer hyper has no limit at all.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn reply(request: Request<Incoming>, reviewer: &Reviewer, bodies: &Semaphore) -> Reply {
    if request.uri().path() != TENANTS {
        return plain(StatusCode::NOT_FOUND, "not found");
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
    }
    let body = Limited::new(request.into_body(), LARGEST_REVIEW);
    let read = async {
        let place = bodies.acquire().await.ok()?;
        Some((place, body.collect().await))
    };
    let (_place, body) = match timeout(BODY, read).await {
        Ok(Some((place, Ok(body)))) => (place, body),
        Ok(Some((_, Err(_)))) => {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large");
        }
        Ok(None) | Err(_) => {
            return plain(StatusCode::REQUEST_TIMEOUT, "the review takes too long");
        }
    };
    let Some(answer) = reviewer.answer(&body.to_bytes()).await else {
        return plain(StatusCode::BAD_REQUEST, "this is no AdmissionReview");
    };
    let mut reply = Response::new(Full::from(answer));
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, json);
    reply
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::from(text));
    *reply.status_mut() = status;
    reply
}
