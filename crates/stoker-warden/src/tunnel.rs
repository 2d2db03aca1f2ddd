//! The tunnel's near end: the API server asks it for streams into the tenant's network, and gets them
//! over connections that the tenant's nodes have opened. Into that network it dials nothing itself.
//!
//! ```text
//!  kube-apiserver ── CONNECT, a socket in the pod ──► front ──► agents (which?) ──► link ═══► node
//!  node ──────────── TLS, its client certificate ───► link ──► agents (who is there)
//! ```

mod agents;
mod credentials;
mod front;
mod link;
mod target;

use std::fs::Permissions;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use agents::Agents;
use credentials::Credentials;

use crate::metrics::Metrics;

pub use credentials::Files;

/// Connections that are being made at a time; each for a few seconds, by whoever reaches the port.
const HANDSHAKES: usize = 512;
/// Connections of agents at a time.
const LINKS: usize = 8192;
/// Streams at a time, over all agents.
const STREAMS: usize = 8192;
/// When no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a handshake may take; and while half of their places are taken.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKE_IN_A_CROWD: Duration = Duration::from_secs(1);
/// Before a near end that could not listen is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether the API server still needs its tunnel.
const LOOK: Duration = Duration::from_millis(250);

/// What the near end is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API server asks.
    pub socket: PathBuf,
    /// Where agents dial, on every address. 0 takes a free one.
    pub port: u16,
    /// What it shows to agents, and whom it believes.
    pub files: Files,
    /// File that says how many near ends the tenant has; without it one.
    pub server_count: Option<PathBuf>,
    /// Where the API server listens, on loopback.
    pub api_server: Option<SocketAddr>,
}

/// Listening, not yet answering.
#[derive(Debug)]
pub struct NearEnd {
    agents: TcpListener,
    front: UnixListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    id: String,
    server_count: Option<PathBuf>,
    credentials: Credentials,
    agents: Agents,
    metrics: Arc<Metrics>,
    leaving: watch::Sender<bool>,
}

/// What agents are told about the near ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// How many there are.
    count: usize,
    /// Whether this one is about to end.
    leaving: bool,
}

/// Keeps a near end up until `end`, and then for as long as the API server needs it. What is wrong with it is told
/// and tried again: the guard beside it goes on.
pub async fn keep(config: Config, end: impl Future<Output = ()>) {
    keep_counted(config, Arc::default(), end).await;
}

/// The same, and what it does is counted.
pub async fn keep_counted(config: Config, metrics: Arc<Metrics>, end: impl Future<Output = ()>) {
    stoker_tunnel::heap::keep_some();
    let mut end = pin!(end);
    let api_server = config.api_server;
    let near = loop {
        match NearEnd::bind_counted(config.clone(), metrics.clone()).await {
            Ok(near) => break near,
            Err(error) => warn!(reason = format!("{error:#}"), "the tunnel is not there"),
        }
        tokio::select! {
            () = &mut end => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    };
    let shared = near.shared.clone();
    let _up = metrics.up();
    tokio::select! {
        () = near.run() => {}
        () = async { end.await; shared.leave(api_server).await } => {}
    }
}

impl NearEnd {
    /// Listens on both sides.
    ///
    /// # Errors
    /// A file cannot be read, or an address or the socket is taken.
    pub async fn bind(config: Config) -> Result<Self> {
        Self::bind_counted(config, Arc::default()).await
    }

    /// The same, and what it does is counted.
    ///
    /// # Errors
    /// As of [`NearEnd::bind`].
    pub async fn bind_counted(config: Config, metrics: Arc<Metrics>) -> Result<Self> {
        let credentials = Credentials::read(config.files).context("reading certificates")?;
        let agents = every_address(config.port)
            .await
            .with_context(|| format!("listening on port {}", config.port))?;
        // Of the process before this one, in the same pod.
        let _ = std::fs::remove_file(&config.socket);
        let front = UnixListener::bind(&config.socket)
            .with_context(|| format!("listening on {}", config.socket.display()))?;
        // The API server may run as another user of the pod's group.
        std::fs::set_permissions(&config.socket, Permissions::from_mode(0o660))
            .with_context(|| format!("opening {} to the group", config.socket.display()))?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).context("drawing an id")?;
        Ok(Self {
            agents,
            front,
            shared: Arc::new(Shared {
                id: hex::encode(id),
                server_count: config.server_count,
                credentials,
                agents: Agents::default(),
                metrics,
                leaving: watch::Sender::new(false),
            }),
        })
    }

    /// Where agents dial.
    ///
    /// # Errors
    /// The socket has none.
    pub fn port(&self) -> Result<u16> {
        Ok(self.agents.local_addr()?.port())
    }

    /// Answers both sides, for ever.
    pub async fn run(self) {
        let Self {
            agents,
            front,
            shared,
        } = self;
        tokio::join!(
            accept_agents(agents, shared.clone()),
            accept_streams(front, shared)
        );
    }
}

impl Shared {
    /// Agents look for another at once; what is open goes on until nobody needs it.
    async fn leave(&self, api_server: Option<SocketAddr>) {
        info!("the tunnel's near end is about to end");
        self.leaving.send_replace(true);
        let Some(api_server) = api_server else {
            return;
        };
        while TcpStream::connect(api_server).await.is_ok() || self.agents.streams() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn told(&self) -> Told {
        Told {
            count: self.server_count(),
            leaving: *self.leaving.borrow(),
        }
    }

    /// How many near ends there are. A file that is half written or away counts as one.
    fn server_count(&self) -> usize {
        self.server_count
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| text.trim().parse().ok())
            .filter(|count| *count > 0)
            .unwrap_or(1)
    }
}

async fn every_address(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A kernel without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

async fn accept_agents(listener: TcpListener, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let links = Arc::new(Semaphore::new(LINKS));
    let mut complaints = Complaints::default();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(ended) = tasks.join_next() => {
                if let Ok(Err(refusal)) = ended {
                    complaints.add(refusal);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Whoever comes while there is no place is let go at once, so that those who wait hold nobody up.
        let (Ok(making), Ok(place)) = (
            handshakes.clone().try_acquire_owned(),
            links.clone().try_acquire_owned(),
        ) else {
            continue;
        };
        let shared = shared.clone();
        let crowd = handshakes.available_permits() < HANDSHAKES / 2;
        let patience = if crowd {
            HANDSHAKE_IN_A_CROWD
        } else {
            HANDSHAKE
        };
        tasks.spawn(async move {
            let _place = place;
            let made = timeout(patience, link::greet(socket, &shared)).await;
            let link = made.unwrap_or(Err(link::Error::Slow));
            drop(making);
            match link {
                Ok(link) => {
                    link.live(&shared).await;
                    Ok(())
                }
                Err(error) => Err((peer, error)),
            }
        });
    }
}

/// Tells of refused agents, once a second: whoever reaches the port causes these lines.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<tokio::time::Instant>,
    untold: u64,
}

impl Complaints {
    fn add(&mut self, (peer, error): (SocketAddr, link::Error)) {
        let recent = |last: tokio::time::Instant| last.elapsed() < Duration::from_secs(1);
        if self.last.is_some_and(recent) {
            self.untold += 1;
            return;
        }
        let reason = format!("{:#}", anyhow::Error::from(error));
        let untold = self.untold;
        warn!(%peer, reason, untold, "a connection was refused");
        *self = Self {
            last: Some(tokio::time::Instant::now()),
            untold: 0,
        };
    }
}

async fn accept_streams(listener: UnixListener, shared: Arc<Shared>) {
    info!(id = shared.id, "the tunnel's near end answers");
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = streams.join_next() => continue,
            accepted = listener.accept(), if streams.len() < STREAMS => accepted,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let shared = shared.clone();
        streams.spawn(async move { front::answer(socket, &shared).await });
    }
}
