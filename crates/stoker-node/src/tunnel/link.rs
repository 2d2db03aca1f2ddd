//! One connection to one warden.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{PingPong, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use stoker_tunnel::ahead::ReadAhead;
use stoker_tunnel::counted::Counted;
use stoker_tunnel::pulse::{INTERVAL, Pulse, Silent};
use stoker_tunnel::relay::relay;
use stoker_tunnel::wire::{REASON, SERVER_COUNT, SERVER_ID, SERVER_LEAVING, far_end, window};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::Credentials;
use super::egress::Refused;
use super::metrics::{Metrics, Unconnected, Undialled};
use super::{Config, Greeting};
use crate::dial;

/// How long a warden may take to answer, and then to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no answer in 10 s")]
    Slow,
    #[error("cannot reach the server")]
    Dial(#[source] std::io::Error),
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("the connection broke")]
    Protocol(#[from] h2::Error),
    #[error("it said nothing for 10 s")]
    NoHello,
    #[error("the server is silent")]
    Silent(#[from] Silent),
    #[error("the answer could not be given")]
    Answer(#[from] http::Error),
}

impl Error {
    /// In few words, for whoever counts.
    pub(super) fn reason(&self) -> Unconnected {
        match self {
            Self::Slow | Self::Dial(_) => Unconnected::Unreachable,
            Self::Handshake(_) => Unconnected::Handshake,
            Self::Protocol(_) | Self::NoHello | Self::Silent(_) | Self::Answer(_) => {
                Unconnected::Protocol
            }
        }
    }
}

type Wire = Connection<TlsStream<ReadAhead<TcpStream>>, Bytes>;

/// A connection to be made.
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) config: Arc<Config>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) greetings: mpsc::Sender<Greeting>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// Whether the warden has said who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    NotYet,
    Wanted,
    Unwanted,
}

impl Link {
    /// Makes the connection and serves it until it ends: broken, drained, or not wanted.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut wire = timeout(PATIENCE, self.connect())
            .await
            .map_err(|_| Error::Slow)??;
        let (windows, mut changes) = mpsc::channel(1);
        let Some(ping) = wire.ping_pong() else {
            return Ok(());
        };
        let mut pulse = pin!(keep_asking(ping, windows));
        let mut streams = JoinSet::new();
        let mut known = Known::NotYet;
        let mut width = window(Duration::ZERO);
        let patience = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                accepted = wire.accept() => match accepted {
                    None => return Ok(()),
                    Some(accepted) => {
                        let (request, respond) = accepted?;
                        if request.method() == Method::CONNECT {
                            let config = self.config.clone();
                            let metrics = self.metrics.clone();
                            streams.spawn(async move {
                                serve(request, respond, &config, &metrics).await;
                            });
                        } else {
                            known = self.greet(&request, respond).await?;
                        }
                        if known == Known::Unwanted {
                            wire.graceful_shutdown();
                        }
                    }
                },
                silent = &mut pulse => return Err(silent.into()),
                Ok(()) = self.draining.changed() => wire.graceful_shutdown(),
                () = sleep_until(patience), if known == Known::NotYet => return Err(Error::NoHello),
                Some(size) = changes.recv() => {
                    // Refused while the last change is not acknowledged; the next ping asks again.
                    if size != width && wire.set_initial_window_size(size).is_ok() {
                        width = size;
                    }
                }
                Some(_) = streams.join_next() => {}
            }
        }
    }

    async fn connect(&self) -> Result<Wire, Error> {
        let server = &self.config.server;
        let dial = async { dial::first_of(server.addresses().await?).await };
        let socket = dial.await.map_err(Error::Dial)?;
        let _ = socket.set_nodelay(true);
        let stream = TlsConnector::from(self.credentials.tls.clone())
            .connect(server.name.clone(), ReadAhead::new(socket))
            .await
            .map_err(Error::Handshake)?;
        Ok(far_end().handshake(stream).await?)
    }

    /// Says what this node is attested to serve; or that the warden is known already.
    async fn greet(
        &self,
        request: &Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<Known, Error> {
        let mut answer = Response::new(());
        let Some((server, count, leaving)) = who(request.headers()) else {
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            respond.send_response(answer, true)?;
            return Ok(Known::Unwanted);
        };
        let (wanted, is_wanted) = oneshot::channel();
        let greeting = Greeting {
            link: self.id,
            server,
            count,
            leaving,
            wanted,
        };
        let asked = self.greetings.send(greeting).await;
        if asked.is_err() || !is_wanted.await.unwrap_or(false) {
            *answer.status_mut() = StatusCode::CONFLICT;
            respond.send_response(answer, true)?;
            return Ok(Known::Unwanted);
        }
        let node = Bytes::copy_from_slice(&self.credentials.node);
        respond
            .send_response(answer, false)?
            .send_data(node, true)?;
        Ok(Known::Wanted)
    }
}

fn who(headers: &HeaderMap) -> Option<(String, usize, bool)> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let count = text(SERVER_COUNT)?
        .parse()
        .ok()
        .filter(|count| *count > 0)?;
    let leaving = text(SERVER_LEAVING) == Some("true");
    Some((text(SERVER_ID)?.to_owned(), count, leaving))
}

async fn keep_asking(mut ping: PingPong, windows: mpsc::Sender<u32>) -> Silent {
    let pulse = Pulse::default();
    loop {
        match pulse.beat(&mut ping).await {
            Ok(round_trip) => {
                let _ = windows.try_send(window(round_trip));
            }
            Err(silent) => return silent,
        }
        sleep(INTERVAL).await;
    }
}

/// Dials, and passes bytes on. What goes wrong afterwards ends this stream alone.
async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    config: &Config,
    metrics: &Metrics,
) {
    let _open = metrics.stream();
    let Some(target) = request.uri().authority().cloned() else {
        return;
    };
    let dialled = tokio::select! {
        dialled = config.egress.dial(&target) => dialled,
        // Nobody waits for it any more.
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let mut socket = match dialled {
        Ok(socket) => socket,
        Err(refused) => {
            metrics.not_dialled(refused.reason());
            let _ = respond.send_response(refused.response(), true);
            return;
        }
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else {
        return;
    };
    let (read, write) = socket.split();
    let mut read = Counted(read, metrics.sent.inner());
    let mut write = Counted(write, metrics.received.inner());
    let relayed = relay(&mut read, &mut write, send, request.into_body()).await;
    if relayed.is_err() {
        // A reset: the target shall not take a cut for an end.
        let _ = socket.set_zero_linger();
    }
}

impl Refused {
    /// In few words, for whoever counts.
    fn reason(&self) -> Undialled {
        match self.status {
            StatusCode::FORBIDDEN => Undialled::Forbidden,
            StatusCode::SERVICE_UNAVAILABLE => Undialled::Unreachable,
            StatusCode::GATEWAY_TIMEOUT => Undialled::Timeout,
            _ => Undialled::Failed,
        }
    }

    fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        if let Ok(reason) = HeaderValue::from_str(&self.reason) {
            response.headers_mut().insert(REASON, reason);
        }
        response
    }
}
