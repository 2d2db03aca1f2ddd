//! Servers, and clients that load what leads to them. All in this process: what is measured is between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use stoker_lab::credentials;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The server that speaks TLS.
const TLS: &str = "tls.clusters.example.com";
/// One that answers a `ClientHello` with one byte.
const PLAIN: &str = "plain.clusters.example.com";
/// One that answers it with bytes without end.
const ENDLESS: &str = "endless.clusters.example.com";
/// Bytes of a request, and of its answer: as of a `get` of a small object.
const REQUEST: usize = 200;
const ANSWER: usize = 1024;

/// Where the three servers are reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) tls: SocketAddr,
    plain: SocketAddr,
    endless: SocketAddr,
}

impl Target {
    /// All at one address, by their names.
    pub(super) fn one(address: SocketAddr) -> Self {
        Self {
            tls: address,
            plain: address,
            endless: address,
        }
    }
}

/// Servers and clients.
pub(super) struct Load {
    servers: Target,
    client: Arc<ClientConfig>,
    _tasks: JoinSet<()>,
}

impl Load {
    pub(super) async fn start() -> Result<Self> {
        // Another part of the process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (client, server) = configs()?;
        let mut tasks = JoinSet::new();
        let servers = Target {
            tls: serve(&mut tasks, move |stream| {
                answer(TlsAcceptor::from(server.clone()), stream)
            })
            .await?,
            plain: serve(&mut tasks, one_byte).await?,
            endless: serve(&mut tasks, endless).await?,
        };
        Ok(Self {
            servers,
            client,
            _tasks: tasks,
        })
    }

    /// Where they are themselves.
    pub(super) fn servers(&self) -> Target {
        self.servers
    }

    /// Their names and addresses.
    pub(super) fn named(&self) -> [(&'static str, SocketAddr); 3] {
        let Target {
            tls,
            plain,
            endless,
        } = self.servers;
        [(TLS, tls), (PLAIN, plain), (ENDLESS, endless)]
    }

    /// Requests one after the other over one connection; how long each took, microseconds.
    pub(super) async fn requests(&self, target: Target, number: usize) -> Result<Vec<f64>> {
        let mut stream = connect(target.tls, &self.client).await?;
        let mut times = Vec::with_capacity(number);
        for _ in 0..number {
            let begun = Instant::now();
            request(&mut stream).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    }

    /// Connections with a handshake and a request each, by clients side by side; how many.
    pub(super) async fn handshakes(
        &self,
        target: Target,
        clients: usize,
        time: Duration,
    ) -> Result<f64> {
        let config = self.client.clone();
        repeat(clients, time, move || {
            let config = config.clone();
            async move { request(&mut connect(target.tls, &config).await?).await }
        })
        .await
    }

    /// Connections with a `ClientHello` and one byte back; how many.
    pub(super) async fn hellos(
        &self,
        target: Target,
        clients: usize,
        time: Duration,
    ) -> Result<f64> {
        let hello: Arc<[u8]> = hello(PLAIN, &self.client)?.into();
        repeat(clients, time, move || {
            let hello = hello.clone();
            async move { raw(target.plain, &hello).await.map(drop) }
        })
        .await
    }

    /// Receives so many bytes over one connection; how many seconds it took.
    pub(super) async fn stream(&self, target: Target, bytes: u64) -> Result<f64> {
        let mut stream = raw(target.endless, &hello(ENDLESS, &self.client)?).await?;
        let mut buffer = vec![0; 256 << 10];
        let begun = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let length = stream.read(&mut buffer).await.context("receiving")?;
            anyhow::ensure!(length > 0, "the stream was cut");
            left = left.saturating_sub(length as u64);
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Connections over which nothing passes any more.
    pub(super) async fn hold(&self, target: Target, number: usize) -> Result<Vec<TcpStream>> {
        let hello = hello(PLAIN, &self.client)?;
        let mut held = Vec::with_capacity(number);
        for _ in 0..number {
            held.push(raw(target.plain, &hello).await?);
        }
        Ok(held)
    }
}

fn configs() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let authority = credentials::authority("bench")?;
    let leaf = credentials::server(&authority, "bench", &[TLS], &[])?;
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(authority.certificate())?)?;
    let mut client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every handshake is a whole one.
    client.resumption = Resumption::disabled();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes())?;
    let server = ServerConfig::builder().with_no_client_auth();
    let mut server = server.with_single_cert(vec![certificate(&leaf.certificate)?], key)?;
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client), Arc::new(server)))
}

/// Does it over and over with so many side by side; how often it was done.
async fn repeat<F, D>(clients: usize, time: Duration, once: F) -> Result<f64>
where
    F: Fn() -> D + Clone + Send + 'static,
    D: Future<Output = Result<()>> + Send,
{
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let once = once.clone();
        tasks.spawn(async move {
            let mut done = 0.0;
            while Instant::now() < end {
                once().await?;
                done += 1.0;
            }
            Ok::<_, anyhow::Error>(done)
        });
    }
    let mut all = 0.0;
    while let Some(done) = tasks.join_next().await {
        all += done.context("a client ended")??;
    }
    Ok(all)
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(config.clone());
    connector
        .connect(ServerName::try_from(TLS)?, stream)
        .await
        .context("TLS")
}

async fn request(stream: &mut TlsStream<TcpStream>) -> Result<()> {
    stream.write_all(&[7; REQUEST]).await?;
    stream.read_exact(&mut [0; ANSWER]).await?;
    Ok(())
}

/// A connection that has said hello and got a byte.
async fn raw(address: SocketAddr, hello: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.context("connecting")?;
    stream.write_all(hello).await?;
    stream
        .read_exact(&mut [0])
        .await
        .context("waiting for the first byte")?;
    Ok(stream)
}

fn hello(name: &'static str, config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut client = ClientConnection::new(config.clone(), ServerName::try_from(name)?)?;
    let mut sent = Vec::new();
    client.write_tls(&mut sent)?;
    Ok(sent)
}

async fn serve<F, D>(tasks: &mut JoinSet<()>, answer: F) -> Result<SocketAddr>
where
    F: Fn(TcpStream) -> D + Send + 'static,
    D: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("listening")?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                // A client that leaves is done.
                tokio::spawn(answer(stream));
            }
        }
    });
    Ok(address)
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    loop {
        stream.read_exact(&mut [0; REQUEST]).await?;
        stream.write_all(&[7; ANSWER]).await?;
    }
}

async fn one_byte(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    began(&mut stream, &mut buffer).await?;
    stream.write_all(&[7]).await?;
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn endless(mut stream: TcpStream) -> std::io::Result<()> {
    let buffer = vec![7; 256 << 10];
    began(&mut stream, &mut [0; 2048]).await?;
    loop {
        stream.write_all(&buffer).await?;
    }
}

/// Waits until the client has said something.
async fn began(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    match stream.read(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
