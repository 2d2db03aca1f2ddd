//! A tenant: its authority, its wardens' near ends, its agents, and what they reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use stoker_pki::{Authority, LeafRequest, LeafUsage};
use stoker_warden::tunnel::{Config as NearConfig, Files as NearFiles, NearEnd};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::{Config, Egress, FarEnd, Files, Metrics};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Tenant {
    pub(super) dir: TempDir,
    pub(super) authority: Authority,
}

/// A task that ends with its owner.
pub(super) struct Running(JoinHandle<()>);

impl Running {
    pub(super) fn new(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Near {
    pub(super) socket: PathBuf,
    pub(super) port: u16,
    _task: Running,
}

pub(super) struct Agent {
    pub(super) files: Files,
    pub(super) metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    pub(super) task: Running,
}

impl Agent {
    /// As SIGTERM does.
    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

pub(super) fn leaf(
    common_name: &str,
    organization: &str,
    usage: LeafUsage,
    addresses: &[&str],
) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organizations: vec![organization.to_owned()],
        usage,
        dns_names: vec!["api.tenant.example.com".to_owned()],
        ip_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        lifetime: time::Duration::hours(1),
    }
}

/// The key of one authority, certified by another.
pub(super) fn link(of: &Authority, by: &Authority) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = |one: &Authority| KeyPair::from_pem(one.key().as_pem()).unwrap();
    let by = Issuer::from_ca_cert_pem(by.certificate(), key(by)).unwrap();
    params.signed_by(&key(of), &by).unwrap().pem()
}

impl Tenant {
    pub(super) fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate("kubernetes", time::Duration::days(9), now).unwrap();
        let tenant = Self {
            dir: TempDir::new().unwrap(),
            authority,
        };
        tenant.write("ca.crt", tenant.authority.certificate());
        let server = leaf("kube-apiserver", "none", LeafUsage::Server, &["127.0.0.1"]);
        let server = tenant.authority.issue(&server, now).unwrap();
        tenant.write("server.crt", &server.certificate);
        tenant.write("server.key", server.key.as_pem());
        tenant
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        // Whole or not at all, as kubelets write.
        let draft = self.path(&format!("{name}.draft"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.path(name)).unwrap();
    }

    /// A near end, that says there are as many as the file `count` says.
    pub(super) async fn near(&self, name: &str) -> Near {
        self.near_at(name, 0).await
    }

    pub(super) async fn near_at(&self, name: &str, port: u16) -> Near {
        let config = self.near_config(name, port);
        let near = NearEnd::bind(config.clone()).await.unwrap();
        Near {
            socket: config.socket,
            port: near.port().unwrap(),
            _task: Running::new(near.run()),
        }
    }

    pub(super) fn near_config(&self, name: &str, port: u16) -> NearConfig {
        NearConfig {
            socket: self.path(&format!("{name}.sock")),
            port,
            files: NearFiles {
                certificate: self.path("server.crt"),
                key: self.path("server.key"),
                client_ca: self.path("ca.crt"),
            },
            server_count: Some(self.path("count")),
            api_server: None,
        }
    }

    /// A node's certificates, as its kubelet keeps them; a serving one when it has addresses.
    pub(super) fn node(&self, node: &str, addresses: &[&str], now: OffsetDateTime) -> Files {
        let name = format!("system:node:{node}");
        let client = leaf(&name, "system:nodes", LeafUsage::Client, &[]);
        self.write_pair(&format!("{node}-client.pem"), &client, now);
        if !addresses.is_empty() {
            let serving = leaf(&name, "system:nodes", LeafUsage::Server, addresses);
            self.write_pair(&format!("{node}-server.pem"), &serving, now);
        }
        Files {
            server_ca: self.path("ca.crt"),
            client_certificate: self.path(&format!("{node}-client.pem")),
            node_certificate: self.path(&format!("{node}-server.pem")),
        }
    }

    pub(super) fn write_pair(&self, name: &str, request: &LeafRequest, now: OffsetDateTime) {
        let pair = self.authority.issue(request, now).unwrap();
        self.write(name, &format!("{}{}", pair.certificate, pair.key.as_pem()));
    }

    /// An agent of a node that dials this port; it reaches everything.
    pub(super) fn agent(&self, node: &str, addresses: &[&str], port: u16) -> Agent {
        let files = self.node(node, addresses, OffsetDateTime::now_utc());
        agent(files, port, Egress::unlimited())
    }

    /// The same, but what it is asked for it refuses: that tells who was asked.
    pub(super) fn refusing(&self, node: &str, addresses: &[&str], port: u16) -> Agent {
        let files = self.node(node, addresses, OffsetDateTime::now_utc());
        let nothing = Egress::new(vec!["192.0.2.0/32".parse().unwrap()], vec![]);
        agent(files, port, nothing)
    }
}

pub(super) fn agent(files: Files, port: u16, egress: Egress) -> Agent {
    let config = Config {
        server: format!("127.0.0.1:{port}").parse().unwrap(),
        files: files.clone(),
        egress,
    };
    let metrics = Arc::<Metrics>::default();
    let far_end = FarEnd::new(config, metrics.clone());
    let (stop, stopped) = oneshot::channel();
    let task = Running::new(async move {
        far_end
            .run(async {
                // Dropped: aborted with the task, or never.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
                DEADLINE
            })
            .await;
    });
    Agent {
        files,
        metrics,
        stop: Some(stop),
        task,
    }
}

/// As kube-apiserver dials: the stream, or the status line that refuses it.
pub(super) async fn open(socket: &Path, target: &str) -> Result<UnixStream, String> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) => return Err(format!("no answer: {error}")),
        }
    }
    let line = String::from_utf8(answer)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    if line.starts_with("HTTP/1.1 200 ") {
        Ok(stream)
    } else {
        Err(line)
    }
}

/// The same, once it succeeds.
pub(super) async fn opened(socket: &Path, target: &str) -> UnixStream {
    let until = Instant::now() + DEADLINE;
    loop {
        match open(socket, target).await {
            Ok(stream) => return stream,
            Err(line) if Instant::now() > until => panic!("{target}: {line}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until a stream is refused in this way. The near end looks at those that it believes every ten seconds, waits as
/// long for an agent that may come, and of several asks the nearest, as they have seemed when it last pinged them: on a busy
/// machine one may seem far for a few pings.
pub(super) async fn refused(socket: &Path, target: &str, with: &str) {
    let until = Instant::now() + 6 * DEADLINE;
    loop {
        let answer = open(socket, target).await.err();
        if answer.as_ref().is_some_and(|line| line.contains(with)) {
            return;
        }
        assert!(
            Instant::now() < until,
            "{target}: {answer:?} instead of {with}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Says back what it hears, until it hears the end. At all addresses of loopback, of which it returns one.
pub(super) async fn echo() -> (SocketAddr, Running) {
    target(|mut socket| async move {
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

pub(super) async fn target<F, A>(answer: F) -> (SocketAddr, Running)
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let task = Running::new(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    (address, task)
}

pub(super) async fn ask<S: AsyncEcho>(stream: &mut S, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await?;
    assert_eq!(heard, text.as_bytes());
    Ok(())
}

pub(super) trait AsyncEcho: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> AsyncEcho for S {}
