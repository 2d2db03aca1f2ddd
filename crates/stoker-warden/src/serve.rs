//! The two listeners. Each accepted connection is a task; a slow or broken one hinders nobody.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::activity::Activity;
use crate::guard::{Review, answer};
use crate::metrics::{self, Metrics};

/// Path of questions that only tell who asks; all others are for the guard.
const ACTIVITY: &str = "/activity";

/// Bytes of a question: an API server takes at most 1 MiB of headers, from which users and groups come.
const LARGEST_QUESTION: usize = 2 << 20;
/// Connections at a time. An API server opens one per request that waits, and keeps 25.
const CONNECTIONS: usize = 256;
/// When no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

type Reply = Response<Full<Bytes>>;

/// Answers API servers at `address`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn guard(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let activity = Arc::new(Activity::default());
    accept(listener, move |request| question(request, activity.clone())).await;
    Ok(())
}

/// Answers the kubelet, and Prometheus where there is a tunnel, at `port` of every address.
///
/// # Errors
/// The port cannot be listened on.
pub async fn health(port: u16, metrics: Option<Arc<Metrics>>) -> Result<()> {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    let listener = match both {
        Ok(listener) => listener,
        // A kernel without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listening on port {port}"))?,
    };
    accept(listener, move |request| {
        ready(alive(&request, metrics.as_deref()))
    })
    .await;
    Ok(())
}

async fn accept<F, R>(listener: TcpListener, reply: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = free.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let reply = reply.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let replied = reply(request);
                async move { Ok::<_, Infallible>(replied.await) }
            });
            // A client that goes away is its own business.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

fn alive(request: &Request<Incoming>, metrics: Option<&Metrics>) -> Reply {
    match (request.uri().path(), metrics) {
        ("/livez", _) => plain(StatusCode::OK, "ok"),
        ("/metrics", Some(metrics)) => {
            let mut reply = Response::new(Full::from(metrics.text()));
            let text = HeaderValue::from_static(metrics::TEXT);
            reply.headers_mut().insert(CONTENT_TYPE, text);
            reply
        }
        _ => plain(StatusCode::NOT_FOUND, "not found"),
    }
}

async fn question(request: Request<Incoming>, activity: Arc<Activity>) -> Reply {
    let is_guarded = request.uri().path() != ACTIVITY;
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "POST a SubjectAccessReview");
    }
    let body = Limited::new(request.into_body(), LARGEST_QUESTION);
    let Ok(body) = body.collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the question is too large");
    };
    let Ok(review) = serde_json::from_slice::<Review>(&body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, "this is no SubjectAccessReview");
    };
    let answer = if is_guarded {
        answer(&review)
    } else {
        activity.answer(&review)
    };
    match serde_json::to_vec(&answer) {
        Ok(json) => {
            let mut reply = Response::new(Full::from(json));
            let json = HeaderValue::from_static("application/json");
            reply.headers_mut().insert(CONTENT_TYPE, json);
            reply
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "no answer"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::from(text));
    *reply.status_mut() = status;
    reply
}
