//! What is sent, and its target: a TLS server that answers three kinds of question.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Bytes of a request: how many are wanted back, in pieces of how many, and padding.
const REQUEST: usize = 128;
/// Bytes of a small answer.
const ANSWER: usize = 256;
/// Bytes that the target writes at once, at most.
pub(super) const LARGEST_PIECE: usize = 256 << 10;

trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<P: AsyncRead + AsyncWrite + Unpin + Send> Pipe for P {}
type Stream = Box<dyn Pipe>;

/// How the target is reached.
#[derive(Debug)]
pub(super) struct Way {
    authority: String,
    target: String,
    tunnel: Option<PathBuf>,
}

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Spell(Vec<Duration>);

impl Spell {
    pub(super) fn add(&mut self, more: Vec<Duration>) {
        self.0.extend(more);
        self.0.sort();
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl Way {
    pub(super) fn new(authority: &str, target: &str, tunnel: Option<PathBuf>) -> Self {
        Self {
            authority: authority.to_owned(),
            target: target.to_owned(),
            tunnel,
        }
    }

    /// A plain stream to the target.
    async fn dial(&self) -> Result<Stream> {
        let Some(socket) = &self.tunnel else {
            let stream = TcpStream::connect(&self.target).await?;
            stream.set_nodelay(true)?;
            return Ok(Box::new(stream));
        };
        let mut stream = UnixStream::connect(socket).await?;
        let head = format!(
            "CONNECT {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            self.target
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("the warden hung up");
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            bail!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(Box::new(stream))
    }

    /// The same, with TLS to the target, as an API server has it to a kubelet.
    async fn open(&self) -> Result<Stream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = self.target.split(':').next().unwrap_or_default().to_owned();
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(ServerName::try_from(host)?, self.dial().await?)
            .await?;
        Ok(Box::new(stream))
    }
}

/// Waits until the way is there.
pub(super) async fn until_open(way: &Way) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = way.dial().await {
        if Instant::now() > until {
            return Err(error.context("the tunnel does not open"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn ask(stream: &mut Stream, wanted: usize, piece: usize) -> Result<()> {
    let mut request = [0; REQUEST];
    request[..8].copy_from_slice(&(wanted as u64).to_be_bytes());
    request[8..16].copy_from_slice(&(piece as u64).to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut left = wanted;
    let mut buffer = vec![0; wanted.min(256 << 10)];
    while left > 0 {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            bail!("{left} bytes are missing");
        }
        left -= read;
    }
    Ok(())
}

/// Small requests on one open stream.
pub(super) async fn requests(way: &Way, number: usize) -> Result<Vec<Duration>> {
    let mut stream = way.open().await?;
    for _ in 0..100 {
        ask(&mut stream, ANSWER, ANSWER).await?;
    }
    let mut took = Vec::with_capacity(number);
    for _ in 0..number {
        let begun = Instant::now();
        ask(&mut stream, ANSWER, ANSWER).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// Streams opened for one small request each.
pub(super) async fn openings(way: &Way, number: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(number);
    for _ in 0..number {
        let begun = Instant::now();
        let mut stream = way.open().await?;
        ask(&mut stream, ANSWER, ANSWER).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// One large answer, which the target writes in pieces.
pub(super) async fn download(way: &Way, bytes: usize, piece: usize) -> Result<Duration> {
    let mut stream = way.open().await?;
    let begun = Instant::now();
    ask(&mut stream, bytes, piece).await?;
    Ok(begun.elapsed())
}

/// Streams that are opened, used once and held.
pub(super) async fn hold(way: &Way, number: usize) -> Result<Vec<impl Sized>> {
    let mut streams = Vec::with_capacity(number);
    for _ in 0..number {
        let mut stream = way.open().await?;
        ask(&mut stream, ANSWER, ANSWER).await?;
        streams.push(stream);
    }
    Ok(streams)
}

/// Serves the target from the namespace of this thread, in a thread of its own.
pub(super) fn serve(files: &Path, address: &str) -> Result<()> {
    let chain = CertificateDer::from_pem_file(files.join("target.crt"))?;
    let key = PrivateKeyDer::from_pem_file(files.join("target.key"))?;
    let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    let listener = std::net::TcpListener::bind(address).context("the target's address")?;
    listener.set_nonblocking(true)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || runtime.block_on(accept(listener, acceptor)));
    Ok(())
}

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move { answer(acceptor.accept(socket).await?).await });
    }
}

async fn answer(mut stream: impl Pipe) -> Result<()> {
    let bytes = vec![7; LARGEST_PIECE];
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request).await?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&request[at..at + 8]);
            usize::try_from(u64::from_be_bytes(number))
        };
        let (mut left, piece) = (number(0)?, number(8)?.min(LARGEST_PIECE));
        while left > 0 {
            let part = left.min(piece);
            stream.write_all(&bytes[..part]).await?;
            left -= part;
        }
        stream.flush().await?;
    }
}
