//! The tenant's API server at an address of this node, for clients that dial addresses: pods dial their Service
//! `kubernetes`, which kube-proxy leads here, and name nobody that a gateway could route by.
//!
//! ```text
//!  pod ─► Service kubernetes ─(kube-proxy)─► listener ─ PROXY header with the tenant's name ─► gateway ─► API server
//!                                              │  TLS untouched                                 │
//!                                              └─ of several addresses one that answers ────────┘
//! ```
//! TLS is between the pod and its API server; the listener has no key and no right.

mod header;
mod node_address;
mod servers;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stoker_sockets::options;
use stoker_sockets::stream::{HALF_CLOSED, Silence, join};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use self::servers::Servers;
use crate::shared_port;
pub use crate::tunnel::{NotAServer, Server};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 1024;
/// When no connection can be taken, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is made sure that the node still has the addresses: two system calls.
const LOOK: Duration = Duration::from_secs(10);

/// API servers and gateways end what is silent for too long.
const SILENCE: Silence = Silence {
    open: None,
    half_closed: HALF_CLOSED,
};

/// What the listener is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses that it takes connections at. Those that are not loopback's are given to the node, on its loopback
    /// interface.
    pub listen: Vec<SocketAddr>,
    /// Where gateways, or API servers, answer.
    pub servers: Vec<Server>,
    /// The tenant's name, told to gateways. API servers cannot be told anything: left out for them.
    pub name: Option<String>,
}

/// It cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}")]
pub struct Error {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens.
#[derive(Debug)]
pub struct Listener {
    config: Config,
    sockets: Vec<TcpListener>,
    servers: Arc<Servers>,
}

impl Listener {
    /// Gives the node the addresses and listens there, beside another that is about to end.
    ///
    /// # Errors
    /// An address is taken, or cannot be given to the node, which needs `CAP_NET_ADMIN`.
    pub fn open(config: Config) -> Result<Self, Error> {
        let sockets = config.listen.iter().map(|&address| {
            // Where that fails the node may have it anyway.
            let given = node_address::ensure(address.ip());
            shared_port::listen(address, BACKLOG).map_err(|source| Error {
                address,
                source: given.err().unwrap_or(source),
            })
        });
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            servers: Arc::new(Servers::new(config.servers.clone())),
            config,
        })
    }

    /// Serves until `stop`, then takes no more connections and lets those that are open live on for as long as that says.
    pub async fn run(self, stop: impl Future<Output = Duration>) {
        let way = Arc::new(Way {
            servers: self.servers,
            first: self.config.name.as_deref().map(header::naming),
        });
        let (stopping, stopped) = watch::channel(None);
        let mut serving = JoinSet::new();
        for socket in self.sockets {
            serving.spawn(serve(socket, way.clone(), stopped.clone()));
        }
        info!(listen = ?self.config.listen, servers = ?self.config.servers, "listening");
        let keeping = keep_addresses(&self.config.listen);
        let drain = tokio::select! {
            drain = stop => drain,
            never = keeping => match never {},
        };
        stopping.send_replace(Some(drain));
        while serving.join_next().await.is_some() {}
    }
}

/// From a client to a server.
#[derive(Debug)]
struct Way {
    servers: Arc<Servers>,
    /// What the server is told before the client's own bytes.
    first: Option<Vec<u8>>,
}

impl Way {
    async fn lead(&self, mut client: TcpStream) -> io::Result<()> {
        options(&client)?;
        let reached = tokio::select! {
            reached = self.servers.reach() => reached?,
            () = left(&client) => return Ok(()),
        };
        let mut server = reached.stream;
        options(&server)?;
        if let Some(first) = &self.first {
            server.write_all(first).await?;
        }
        join(&mut client, &mut server, SILENCE, |_, _| {}).await
    }
}

/// Ends when the client has gone; never while it has said something.
async fn left(client: &TcpStream) {
    let gone =
        client.readable().await.is_err() || matches!(client.peek(&mut [0]).await, Ok(0) | Err(_));
    if !gone {
        std::future::pending::<()>().await;
    }
}

async fn serve(socket: TcpListener, way: Arc<Way>, mut stopped: watch::Receiver<Option<Duration>>) {
    let mut open = JoinSet::new();
    let take = |client: TcpStream, open: &mut JoinSet<()>| {
        let way = way.clone();
        open.spawn(async move {
            if let Err(error) = way.lead(client).await {
                debug!(%error, "a connection broke");
            }
        });
    };
    let drain = loop {
        tokio::select! {
            _ = stopped.changed() => break stopped.borrow().unwrap_or_default(),
            _ = open.join_next(), if !open.is_empty() => {}
            taken = socket.accept() => match taken {
                Ok((client, _)) => take(client, &mut open),
                Err(error) => {
                    warn!(%error, "no connection can be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    };
    for client in taken_already(socket) {
        take(client, &mut open);
    }
    let ended = async { while open.join_next().await.is_some() {} };
    if timeout(drain, ended).await.is_err() {
        info!("connections are cut");
    }
}

/// Those that the kernel has taken for this socket, which would be cut with it.
fn taken_already(socket: TcpListener) -> Vec<TcpStream> {
    let Ok(socket) = socket.into_std() else {
        return Vec::new();
    };
    let taken = std::iter::from_fn(|| socket.accept().ok());
    let own = |(client, _): (std::net::TcpStream, _)| {
        client.set_nonblocking(true)?;
        TcpStream::from_std(client)
    };
    taken.filter_map(|taken| own(taken).ok()).collect()
}

/// Gives the node its addresses back when somebody takes them.
async fn keep_addresses(addresses: &[SocketAddr]) -> Infallible {
    let mut look = interval(LOOK);
    let mut failed = false;
    loop {
        look.tick().await;
        let kept = addresses
            .iter()
            .try_for_each(|address| node_address::ensure(address.ip()));
        if let Err(error) = &kept
            && !failed
        {
            warn!(%error, "the node cannot be given the addresses should it lose them");
        }
        failed = kept.is_err();
    }
}

/// Takes an address from the node that a listener has given it, whoever has it open.
///
/// # Errors
/// The kernel refuses: without `CAP_NET_ADMIN`, for one.
pub fn withdraw(address: IpAddr) -> io::Result<()> {
    node_address::remove(address)
}

#[cfg(test)]
mod tests;
