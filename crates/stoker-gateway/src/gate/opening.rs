//! What a connection says before it is known whom it wants.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use stoker_sockets::stream::receive;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Gate, Taken};
use crate::hello::{ClientHello, HelloReader, LARGEST_HELLO};
use crate::proxy_protocol::{self, Ends, LARGEST_HEADER};
use crate::refusal::Refusal;
use crate::routes::Route;

/// How long a `ClientHello` may take once half of the places are taken: whoever takes them and says nothing loses them
/// before others need them.
const CROWDED: Duration = Duration::from_secs(1);

/// What was said.
pub(super) struct Opening {
    /// Whom the client wants: what the listener on its node says for those that name nobody, or the cluster's own name of
    /// the API server, else the name in the hello. Either is a claim that opens nothing: who the client is, it
    /// tells the API server.
    pub(super) name: Box<str>,
    /// Whether it wants the tunnel.
    pub(super) tunnel: bool,
    /// The hello, for the backend.
    received: Vec<u8>,
    peer: SocketAddr,
    /// What a load balancer told.
    told: Option<Ends>,
}

impl Gate {
    pub(super) async fn opening(
        &self,
        client: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<Opening, Refusal> {
        let _place = Taken::of(&self.openings, self.settings.openings)?;
        let crowded = self.openings.taken() > self.settings.openings / 2;
        let limit = if crowded {
            self.settings.hello.min(CROWDED)
        } else {
            self.settings.hello
        };
        let reading = self.read_opening(client, peer);
        timeout(limit, reading).await.unwrap_or(Err(Refusal::Slow))
    }

    async fn read_opening(
        &self,
        client: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<Opening, Refusal> {
        let address = peer.ip().to_canonical();
        let peer = SocketAddr::new(address, peer.port());
        let mut networks = self.settings.proxies.iter();
        let (mut told, mut said) = (None, Vec::new());
        if networks.any(|network| network.contains(&address)) {
            let header = read_header(client, &mut said).await?;
            told = header.ends;
        }
        if said.is_empty() {
            said = receive(client, LARGEST_HELLO, |_, bytes| bytes.to_vec())
                .await
                .map_err(silent)?;
        }
        let listener = if proxy_protocol::begins(&said) {
            let header = read_header(client, &mut said).await?;
            Some(header.authority.ok_or(Refusal::ProxyHeader)?)
        } else {
            None
        };
        let (hello, received) = read_hello(client, &said).await?;
        Ok(Opening {
            name: listener.or(hello.server_name).ok_or(Refusal::NoName)?,
            tunnel: hello.tunnel,
            received,
            peer,
            told,
        })
    }
}

/// The hello, of which `said` is the begin, and all its bytes.
async fn read_hello(
    client: &mut TcpStream,
    said: &[u8],
) -> Result<(ClientHello, Vec<u8>), Refusal> {
    let mut reader = HelloReader::default();
    let mut read = reader.push(said)?;
    while read.is_none() {
        let room = reader.room();
        let pushed = receive(client, room, |_, bytes| {
            (!bytes.is_empty()).then(|| reader.push(bytes))
        });
        read = pushed.await.map_err(silent)?.ok_or(Refusal::Silent)??;
    }
    let hello = read.ok_or(Refusal::Silent)?;
    Ok((hello, reader.into_received()))
}

/// The header at the begin of what was `said`, which is without it then.
async fn read_header(
    client: &mut TcpStream,
    said: &mut Vec<u8>,
) -> Result<proxy_protocol::Header, Refusal> {
    loop {
        let header = proxy_protocol::read(said).map_err(|_| Refusal::NoProxyHeader)?;
        if let Some(header) = header {
            said.drain(..header.length);
            return Ok(header);
        }
        let room = LARGEST_HEADER.saturating_sub(said.len());
        let more = receive(client, room, |_, bytes| {
            said.extend_from_slice(bytes);
            !bytes.is_empty()
        });
        if !more.await.map_err(silent)? {
            return Err(Refusal::Silent);
        }
    }
}

impl Opening {
    /// What a backend of `route` gets first.
    pub(super) fn for_backend(self, route: &Route, client: &TcpStream) -> Vec<u8> {
        if !route.proxy_protocol {
            return self.received;
        }
        let ends = self.told.unwrap_or_else(|| Ends {
            source: self.peer,
            destination: local(client),
        });
        [proxy_protocol::write(&ends), self.received].concat()
    }
}

/// What the client dialed.
fn local(client: &TcpStream) -> SocketAddr {
    let address = client.local_addr();
    let address = address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn silent(_: io::Error) -> Refusal {
    Refusal::Silent
}

/// Ends when the client has gone; never while it has said something that nobody has read.
pub(super) async fn left(client: &TcpStream) {
    let gone =
        client.readable().await.is_err() || matches!(client.peek(&mut [0]).await, Ok(0) | Err(_));
    if !gone {
        std::future::pending::<()>().await;
    }
}
