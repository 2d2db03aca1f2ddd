//! A network between a client and an API server that can be broken in two ways.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Network {
    /// Carries everything.
    Up,
    /// Carries nothing and says nothing, as when a machine or a cable is gone.
    Silent,
    /// Closes its connections and accepts no more.
    Down,
}

/// A proxy on loopback.
pub(crate) struct StallingProxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<Network>,
    task: JoinHandle<()>,
}

impl StallingProxy {
    pub(crate) async fn before(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(Network::Up);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Network::Down {
                    tokio::spawn(carry(client, target, watched.clone()));
                }
            }
        });
        Ok(Self {
            address,
            state,
            task,
        })
    }

    pub(crate) fn become_(&self, network: Network) {
        self.state.send_replace(network);
    }
}

impl Drop for StallingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<Network>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let up = one_way(client_reads, server_writes, state.clone());
    let down = one_way(server_reads, client_writes, state.clone());
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = state.wait_for(|network| *network == Network::Down) => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<Network>,
) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        state.wait_for(|network| *network == Network::Up).await?;
        to.write_all(&buffer[..read]).await?;
    }
}
