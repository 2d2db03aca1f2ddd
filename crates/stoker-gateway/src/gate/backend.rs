//! To a backend that answers. One that does not is passed over for the next, as long as nothing of it has reached the
//! client: the `ClientHello` is all that was said, and can be said again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Gate;
use crate::refusal::Refusal;
use crate::routes::{BackendInUse, Rest, Route, Service};
use crate::sockets::dialing;
use crate::waker::Waker;

/// When every address has failed, before the first is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// A backend that was reached.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) backend: BackendInUse,
}

/// Where to.
pub(super) struct Destination<'a> {
    pub(super) route: &'a Route,
    pub(super) service: Service,
    /// Of a connection that wakes the tenant if it sleeps.
    pub(super) waker: Option<&'a Waker>,
}

impl Destination<'_> {
    /// When who is held is let go: to a tenant that sleeps or wakes before clients give up by themselves.
    fn deadline(&self, gate: &Gate, begun: Instant) -> Instant {
        let hold = match self.route.rest() {
            Rest::None => gate.settings.hold,
            Rest::Asleep | Rest::Waking => gate.settings.wake_hold,
        };
        begun + hold
    }

    /// Why who is held is let go. To whom a tenant that wakes is no answer yet, comes again.
    fn refusal(&self, otherwise: Refusal) -> Refusal {
        match (self.route.rest(), self.waker) {
            (Rest::Waking, _) | (Rest::Asleep, Some(_)) => Refusal::Waking,
            (Rest::Asleep, None) | (Rest::None, _) => otherwise,
        }
    }
}

/// Reaches one and sends it `said`.
pub(super) async fn reach(
    gate: &Gate,
    to: &Destination<'_>,
    said: &[u8],
    client: &TcpStream,
) -> Result<Reached, Refusal> {
    let Destination {
        route,
        service,
        waker,
    } = *to;
    let begun = Instant::now();
    // Once all of them were tried, one that takes its time is waited for.
    let mut first_round = true;
    loop {
        if !route.ready(service, to.deadline(gate, begun), waker).await {
            return Err(to.refusal(Refusal::NotReady));
        }
        let mut tried: Vec<SocketAddr> = Vec::new();
        while let Some(backend) = route.backend(service, &tried) {
            tried.push(backend.address());
            let hasty = first_round && route.has_other(service, &tried);
            let answer = hasty.then_some(gate.settings.answer);
            let limits = (gate.settings.connect, answer);
            match open(backend.address(), said, client, limits).await {
                Ok(stream) => {
                    backend.answered();
                    return Ok(Reached { stream, backend });
                }
                Err(error) => {
                    backend.failed();
                    gate.metrics.backend_failures.inc();
                    tracing::debug!(backend = %backend.address(), tenant = route.tenant.name(), %error, "not reached");
                }
            }
        }
        if Instant::now() + PAUSE >= to.deadline(gate, begun) {
            return Err(to.refusal(Refusal::Unreachable));
        }
        tokio::time::sleep(PAUSE).await;
        first_round = false;
    }
}

/// `limits` are how long the address may take to be reached, and then to answer if it may not take as long as it likes.
async fn open(
    address: SocketAddr,
    said: &[u8],
    client: &TcpStream,
    limits: (Duration, Option<Duration>),
) -> io::Result<TcpStream> {
    let (to_connect, to_answer) = limits;
    let connect = dialing(address)?.connect(address);
    let mut stream = timeout(to_connect, connect).await??;
    stream.write_all(said).await?;
    // It is the one once it has said something, or the client has said more.
    let chosen = async {
        tokio::select! {
            answered = answer(&stream) => answered,
            readable = client.readable() => readable,
        }
    };
    match to_answer {
        Some(limit) => timeout(limit, chosen).await??,
        None => chosen.await?,
    }
    Ok(stream)
}

/// Waits for its first byte.
async fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.readable().await?;
    match stream.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
