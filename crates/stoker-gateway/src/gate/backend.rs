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
use crate::routes::{BackendInUse, Route, Service};
use crate::sockets::dialing;

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
}

/// Reaches one and sends it `said`.
pub(super) async fn reach(
    gate: &Gate,
    to: &Destination<'_>,
    said: &[u8],
    client: &TcpStream,
) -> Result<Reached, Refusal> {
    let Destination { route, service } = *to;
    let deadline = Instant::now() + gate.settings.hold;
    loop {
        if !route.ready(service, deadline).await {
            return Err(Refusal::NotReady);
        }
        let mut tried: Vec<SocketAddr> = Vec::new();
        while let Some(backend) = route.backend(service, &tried) {
            tried.push(backend.address());
            match open(gate, backend.address(), said, client).await {
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
        if Instant::now() + PAUSE >= deadline {
            return Err(Refusal::Unreachable);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(
    gate: &Gate,
    address: SocketAddr,
    said: &[u8],
    client: &TcpStream,
) -> io::Result<TcpStream> {
    let connect = dialing(address)?.connect(address);
    let mut stream = timeout(gate.settings.connect, connect).await??;
    stream.write_all(said).await?;
    // It is the one once it has said something, or the client has said more.
    tokio::select! {
        answered = answer(&stream) => answered?,
        readable = client.readable() => readable?,
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
