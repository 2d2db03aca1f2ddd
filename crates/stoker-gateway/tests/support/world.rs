//! The gateway's process, and TLS servers behind it that tell who they are and whom they see.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A tenant's authority: what it signs is believed by nobody else.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    fn leaf(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// A client with a certificate of this authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        let (certificate, key) = self.leaf("client");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(certificate, key);
        Arc::new(config.unwrap())
    }

    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let (certificate, key) = self.leaf(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(certificate, key);
        Arc::new(config.unwrap())
    }
}

/// One API server of a tenant: tells its number, then echoes. Ends with its value.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    pub async fn start(authority: &Authority, name: &str, greeting: &'static str) -> Self {
        Self::start_at(authority, name, greeting, "127.0.0.1:0").await
    }

    pub async fn start_at(
        authority: &Authority,
        name: &str,
        greeting: &'static str,
        at: &str,
    ) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(authority.server(name));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let _ = stream.write_all(greeting.as_bytes()).await;
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    pub fn seen(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The process; killed when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    health: SocketAddr,
    routes: PathBuf,
    pub process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    pub async fn start(routes: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        Self::start_at(&format!("127.0.0.1:{port}"), routes, arguments).await
    }

    pub async fn start_at(listen: &str, routes: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("routes.yaml");
        write(&file, routes);
        let health: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_stoker-gateway"))
            .arg(format!("--listen={listen}"))
            .arg(format!("--routes={}", file.display()))
            .arg(format!("--health-bind-address={health}"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Logs go on to the test's output.
        let log = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| println!("{line}"));
        });
        let first = listen.split(',').next().unwrap();
        let gateway = Self {
            address: first.parse().unwrap(),
            health,
            routes: file,
            process,
            _directory: directory,
        };
        until("ready", async || gateway.ready().await == Some(true)).await;
        gateway
    }

    /// What `/readyz` says, if anything answers.
    pub async fn ready(&self) -> Option<bool> {
        self.get("/readyz")
            .await
            .map(|text| text.starts_with("HTTP/1.1 200"))
    }

    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.unwrap()
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.metrics().await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.health).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    pub fn change_routes(&self, routes: &str) {
        write(&self.routes, routes);
    }

    pub fn terminate(&self) {
        let process = i32::try_from(self.process.id()).unwrap();
        let process = nix::unistd::Pid::from_raw(process);
        nix::sys::signal::kill(process, nix::sys::signal::SIGTERM).unwrap();
    }

    /// A connection to `name`.
    pub async fn connect(
        &self,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        handshake(TcpStream::connect(self.address).await?, client, name).await
    }
}

pub async fn handshake(
    stream: TcpStream,
    client: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(client.clone())
        .connect(name, stream)
        .await
}

/// What a backend says first.
pub async fn greeting(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await?;
    Ok(String::from_utf8_lossy(&greeting).into_owned())
}

/// Sends something and gets it back.
pub async fn echo(stream: &mut TlsStream<TcpStream>, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await?;
    assert_eq!(heard, text.as_bytes());
    Ok(())
}

fn write(path: &Path, routes: &str) {
    // As a mounted ConfigMap changes: at once.
    let next = path.with_extension("next");
    std::fs::write(&next, routes).unwrap();
    std::fs::rename(&next, path).unwrap();
}

pub fn free_port() -> u16 {
    stoker_lab::ports::free_port().unwrap()
}

pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "not within 20 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn route(name: &str, backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends
        .iter()
        .map(|address| format!("{:?}", address.to_string()))
        .collect();
    format!("\n- name: {name}\n  backends: [{}]", backends.join(", "))
}
