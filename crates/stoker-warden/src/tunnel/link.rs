//! One agent's connection, from the handshake to its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Request, StatusCode};
use rustls_pki_types::CertificateDer;
use stoker_tunnel::ahead::ReadAhead;
use stoker_tunnel::identity::{NodeName, Served};
use stoker_tunnel::pulse::{INTERVAL, Pulse};
use stoker_tunnel::wire::{
    HELLO, LARGEST_HELLO, SERVER_COUNT, SERVER_ID, SERVER_LEAVING, near_end, window,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::credentials::{self, Trust};
use super::{Shared, Told};

/// How long an agent may take to say who it is.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a certificate is believed without another look, as long as the authorities stay the same.
const BELIEF: Duration = Duration::from_mins(1);

/// Why a connection is not, or no longer, an agent's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it took too long")]
    Slow,
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("its certificate is not believed")]
    Certificate(#[from] credentials::Error),
    #[error("it does not speak the tunnel's protocol")]
    Protocol(#[source] h2::Error),
    #[error("the agent has a connection already")]
    Duplicate,
    #[error("the answer to the hello is wrong")]
    Hello,
    #[error("the agent is silent")]
    Silent(#[from] stoker_tunnel::pulse::Silent),
    #[error("too many connections of the same node are about to begin")]
    Crowded,
    #[error("newer connections of the same node took its place")]
    Evicted,
}

type Wire = Connection<TlsStream<ReadAhead<TcpStream>>, Bytes>;

/// A connection whose client is a node of the tenant.
pub(super) struct Link {
    node: NodeName,
    chain: Vec<CertificateDer<'static>>,
    requests: SendRequest<Bytes>,
    wire: Wire,
}

/// Makes the connection. Nothing but a node of this tenant gets past this.
pub(super) async fn greet(socket: TcpStream, shared: &Shared) -> Result<Link, Error> {
    let _ = socket.set_nodelay(true);
    let trust = shared.credentials.current();
    let stream = TlsAcceptor::from(trust.tls.clone())
        .accept(ReadAhead::new(socket))
        .await
        .map_err(Error::Handshake)?;
    let chain: Vec<_> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let node = Trust::node(&chain)?;
    let (requests, wire) = near_end()
        .handshake(stream)
        .await
        .map_err(Error::Protocol)?;
    Ok(Link {
        node,
        chain,
        requests,
        wire,
    })
}

impl Link {
    /// Keeps the agent among those that are asked, as long as it answers and is believed.
    pub(super) async fn live(self, shared: &Shared) {
        let Self {
            node,
            chain,
            requests,
            mut wire,
        } = self;
        let Some(ping) = wire.ping_pong() else {
            return;
        };
        let (windows, changes) = mpsc::channel(1);
        let life = Life {
            node: &node,
            chain: &chain,
            shared,
            windows,
        };
        let ended = tokio::select! {
            ended = drive(wire, changes) => ended.map_err(Error::Protocol),
            ended = life.run(requests, ping) => ended,
        };
        match ended {
            Ok(()) => info!(%node, "agent left"),
            Err(Error::Duplicate) => {}
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                warn!(%node, reason, "agent lost");
            }
        }
    }
}

/// Moves frames, and changes windows when told.
async fn drive(mut wire: Wire, mut windows: mpsc::Receiver<u32>) -> Result<(), h2::Error> {
    let mut now = window(Duration::ZERO);
    poll_fn(|context| {
        while let Poll::Ready(Some(size)) = windows.poll_recv(context) {
            // Refused while the last change is not acknowledged; the next ping asks again.
            if size != now && wire.set_initial_window_size(size).is_ok() {
                now = size;
            }
        }
        Pin::new(&mut wire).poll(context)
    })
    .await
}

struct Life<'a> {
    node: &'a NodeName,
    chain: &'a [CertificateDer<'static>],
    shared: &'a Shared,
    windows: mpsc::Sender<u32>,
}

impl Life<'_> {
    async fn run(self, requests: SendRequest<Bytes>, mut ping: h2::PingPong) -> Result<(), Error> {
        let agents = &self.shared.agents;
        let greeted = agents.greet(self.node).ok_or(Error::Crowded)?;
        let mut leaving = self.shared.leaving.subscribe();
        let mut told = self.shared.told();
        let mut believed = (self.shared.credentials.current(), Instant::now());
        let served = self.hello(&requests, told).await?;
        let pulse = Arc::new(Pulse::default());
        pulse.beat(&mut ping).await?;
        let addresses = served.as_ref().map_or(0, |served| served.addresses.len());
        let registered = agents.add(self.node, served, pulse.clone(), requests.clone());
        drop(greeted);
        let _link = self.shared.metrics.link();
        info!(node = %self.node, addresses, "agent connected");
        loop {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = registered.doubted.notified() => {}
                Ok(()) = leaving.changed() => {}
                () = registered.evicted.notified() => return Err(Error::Evicted),
            }
            let round_trip = pulse.beat(&mut ping).await?;
            let _ = self.windows.try_send(window(round_trip));
            let current = self.shared.credentials.current();
            if !Arc::ptr_eq(&current, &believed.0) || believed.1.elapsed() >= BELIEF {
                current.still_holds(self.chain)?;
                believed = (current, Instant::now());
            }
            let now = self.shared.told();
            if now != told {
                match self.hello(&requests, now).await {
                    // It drains: what is open goes on, and an end of the connection shows by itself.
                    Err(Error::Protocol(_) | Error::Duplicate) => registered.leave(),
                    answer => drop(answer?),
                }
                told = now;
            }
        }
    }

    /// Says who asks, and learns what the agent's kubelet is attested to serve.
    async fn hello(
        &self,
        requests: &SendRequest<Bytes>,
        told: Told,
    ) -> Result<Option<Served>, Error> {
        let answer = timeout(ANSWER, ask(requests.clone(), &self.shared.id, told));
        let certificate = answer.await.map_err(|_| Error::Slow)??;
        if certificate.is_empty() {
            return Ok(None);
        }
        let trust = self.shared.credentials.current();
        match trust.served(&certificate, self.node) {
            Ok(served) => Ok(Some(served)),
            // It may still pass on what has no owner.
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                warn!(node = %self.node, reason, "the agent's addresses are not believed");
                Ok(None)
            }
        }
    }
}

async fn ask(requests: SendRequest<Bytes>, id: &str, told: Told) -> Result<Vec<u8>, Error> {
    let request = Request::get(HELLO)
        .header(SERVER_ID, id)
        .header(SERVER_COUNT, told.count)
        .header(SERVER_LEAVING, told.leaving.to_string())
        .body(())
        .map_err(|_| Error::Hello)?;
    let mut requests = requests.ready().await.map_err(Error::Protocol)?;
    let (answer, _) = requests
        .send_request(request, true)
        .map_err(Error::Protocol)?;
    let answer = answer.await.map_err(Error::Protocol)?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::CONFLICT => return Err(Error::Duplicate),
        _ => return Err(Error::Hello),
    }
    let mut body = answer.into_body();
    let mut certificate = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(Error::Protocol)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        certificate.extend_from_slice(&chunk);
        if certificate.len() > LARGEST_HELLO {
            return Err(Error::Hello);
        }
    }
    Ok(certificate)
}
