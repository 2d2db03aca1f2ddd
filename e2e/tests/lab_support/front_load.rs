//! Clients of a tenant while its gateways come and go: people who ask by a new connection each time, and watches that stay
//! open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Config;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::ServerName;
use stoker_lab::lab::Lab;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::front::Front;
use crate::world::{World, eventually};

const PEOPLE: usize = 4;
/// Between two questions of a person.
const PAUSE: Duration = Duration::from_millis(100);
/// Until a question that failed is asked once more. A gateway that was killed is started again, or sent nobody any more, after
/// two seconds: kubelets look every second what has ended, and kube-proxy changes its rules every second.
const AGAIN: Duration = Duration::from_secs(3);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// People who ask until they are told to end.
pub(crate) struct Load {
    ending: Arc<AtomicBool>,
    people: Vec<JoinHandle<Counts>>,
}

/// What became of their questions.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) asked: usize,
    /// Answered when asked once more, and why not the first time.
    pub(crate) retried: Vec<String>,
    /// Not answered then either.
    pub(crate) lost: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Load {
    pub(crate) fn start(front: &Front<'_>) -> Self {
        let ending = Arc::<AtomicBool>::default();
        let person = |_| {
            let (lab, kubeconfig) = (front.world.lab.clone(), front.tenant.kubeconfig.clone());
            tokio::spawn(ask_on(lab, kubeconfig, ending.clone()))
        };
        Self {
            people: (0..PEOPLE).map(person).collect(),
            ending,
        }
    }

    pub(crate) async fn end(self) -> Result<Counts> {
        self.ending.store(true, Ordering::Relaxed);
        let mut all = Counts::default();
        for person in self.people {
            let counts = person.await.context("a person")?;
            all.asked += counts.asked;
            all.retried.extend(counts.retried);
            all.lost.extend(counts.lost);
            all.slowest = all.slowest.max(counts.slowest);
        }
        Ok(all)
    }
}

async fn ask_on(lab: Lab, kubeconfig: String, ending: Arc<AtomicBool>) -> Counts {
    let mut counts = Counts::default();
    while !ending.load(Ordering::Relaxed) {
        counts.asked += 1;
        let begun = Instant::now();
        if let Err(first) = ask(&lab, &kubeconfig).await {
            tokio::time::sleep(AGAIN).await;
            match ask(&lab, &kubeconfig).await {
                Ok(()) => counts.retried.push(format!("{first:#}")),
                Err(second) => counts.lost.push(format!("{first:#}, then {second:#}")),
            }
        } else {
            counts.slowest = counts.slowest.max(begun.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
    counts
}

/// Asks the API server something, by a connection of its own.
async fn ask(lab: &Lab, kubeconfig: &str) -> Result<()> {
    let answer = async {
        let client = lab.tenant_client(kubeconfig).await?;
        client.apiserver_version().await?;
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, answer)
        .await
        .context("no answer")?
}

/// An open watch of the tenant's `ConfigMap`s in `default`.
pub(crate) struct Stream {
    /// The address of the gateway that it goes through.
    pub(crate) gateway: String,
    heard: Arc<Mutex<String>>,
    ended: Arc<OnceLock<Instant>>,
    task: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    /// Opens so many, through whichever gateway the load balancer chooses.
    pub(crate) async fn open(front: &Front<'_>, count: usize) -> Result<Vec<Self>> {
        let kubeconfig = Kubeconfig::from_yaml(&front.tenant.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let connector = TlsConnector::from(Arc::new(config.rustls_client_config()?));
        let name = config.tls_server_name.context("a kubeconfig that wakes")?;
        let name = ServerName::try_from(name)?;
        let address = SocketAddr::new(front.world.lab.gateway_address().await?, 6443);
        let mut opened = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(address).await?;
            let port = stream.local_addr()?.port();
            let mut stream = connector.connect(name.clone(), stream).await?;
            let ask = "GET /api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1800 HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(ask.as_bytes()).await?;
            let (heard, ended) = (
                Arc::<Mutex<String>>::default(),
                Arc::<OnceLock<_>>::default(),
            );
            let task = tokio::spawn(listen(stream, heard.clone(), ended.clone()));
            opened.push((port, heard, ended, task));
        }
        let led = gateways_of(front.world, address).await?;
        let with_gateway = |(port, heard, ended, task)| {
            let gateway = led.get(&port).cloned();
            Ok(Self {
                gateway: gateway.with_context(|| format!("port {port} is in no table"))?,
                heard,
                ended,
                task,
            })
        };
        let streams = opened.into_iter().map(with_gateway);
        let streams: Vec<_> = streams.collect::<Result<_>>()?;
        eventually(PATIENCE, "all watches are open", async || {
            let mut streams = streams.iter();
            ensure!(
                streams.all(|stream| stream.has_heard("200 OK")),
                "one is not"
            );
            Ok(())
        })
        .await?;
        Ok(streams)
    }

    pub(crate) fn has_heard(&self, what: &str) -> bool {
        locked(&self.heard).contains(what)
    }

    /// When it was cut.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }
}

/// Keeps what comes, until nothing comes any more.
async fn listen(
    mut stream: TlsStream<TcpStream>,
    heard: Arc<Mutex<String>>,
    ended: Arc<OnceLock<Instant>>,
) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]);
        locked(&heard).push_str(&text);
    }
    // Nobody else sets it.
    let _ = ended.set(Instant::now());
}

fn locked(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To which gateway each connection of this machine to their address was led, by its port here.
async fn gateways_of(world: &World, address: SocketAddr) -> Result<BTreeMap<u16, String>> {
    let address = address.ip().to_string();
    let list = ["conntrack", "-L", "-p", "tcp", "-d", &address];
    let listed = world.host()?.run(list).await?;
    let own = world.lab.addresses().gateway().to_string();
    let found = listed.lines().filter_map(|line| {
        let all = |key: &str| {
            let words = line.split_whitespace();
            let found = words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.map(str::to_owned).collect::<Vec<_>>()
        };
        let (sources, ports) = (all("src"), all("sport"));
        // The way there, then the way back.
        let [from, gateway] = sources.try_into().ok()?;
        (from == own).then_some((ports.first()?.parse().ok()?, gateway))
    });
    Ok(found.collect())
}
