//! The listener that a tenant asks of its machines: followed as it changes, and kept over restarts, since a tenant that sleeps
//! cannot be asked and is woken by whoever dials it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use stoker_api::host_agent::ListenerOrder;
use stoker_node::listener::{Config, Listener, withdraw};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::paths::write;

/// How long connections may live on where another listener takes new ones; watches are renewed by their clients in that time.
pub(crate) const DRAIN: Duration = Duration::from_mins(10);

/// What is known of it, on disk.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    /// What was asked last.
    order: Option<ListenerOrder>,
    /// What the machine was given, and has until it leaves.
    addresses: BTreeSet<IpAddr>,
}

/// Keeps the listener.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    known: Known,
    running: Option<Running>,
    /// All of them, those that end too.
    listeners: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    order: ListenerOrder,
    stop: oneshot::Sender<Duration>,
}

impl Keeper {
    /// Begins with what was asked last.
    pub(crate) fn begin(path: &Path) -> Self {
        let known = read(path).unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the listener waits");
            Known::default()
        });
        let order = known.order.clone();
        let mut keeper = Self {
            path: path.to_owned(),
            known,
            running: None,
            listeners: JoinSet::new(),
        };
        if let Some(order) = order
            && let Err(error) = keeper.open(order)
        {
            tracing::warn!(error = format!("{error:#}"), "no listener yet");
        }
        keeper
    }

    /// Whether it listens.
    pub(crate) fn listens(&self) -> bool {
        self.running.is_some()
    }

    /// Does what the tenant asks; whether it listens then as asked.
    pub(crate) fn follow(&mut self, asked: Option<ListenerOrder>) -> Result<bool> {
        let Some(asked) = asked else {
            if self.known.order.take().is_some() {
                self.write()?;
            }
            self.let_go();
            return Ok(false);
        };
        // Not known yet, or not known any more: what there is goes on.
        let is_new = self.running.as_ref().is_none_or(|now| now.order != asked);
        if is_new && !asked.servers.is_empty() {
            let addresses = asked.listen.iter().map(SocketAddr::ip);
            self.known.addresses.extend(addresses);
            self.known.order = Some(asked.clone());
            self.write()?;
            self.open(asked)?;
        }
        Ok(self.listens())
    }

    /// Takes no more connections, and waits until those that are open have ended, for as long as `drain`.
    pub(crate) async fn end(&mut self, drain: Duration) {
        if let Some(running) = self.running.take() {
            // One that has ended is ended.
            let _ = running.stop.send(drain);
        }
        while self.listeners.join_next().await.is_some() {}
    }

    fn open(&mut self, order: ListenerOrder) -> Result<()> {
        let config = config(&order)?;
        let listener = Listener::open(config).context("the listener that the tenant asks for")?;
        self.let_go();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        self.listeners.spawn(listener.run(stopped));
        self.running = Some(Running { order, stop });
        Ok(())
    }

    fn let_go(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(DRAIN);
        }
        // What has ended is forgotten.
        while self.listeners.try_join_next().is_some() {}
    }

    fn write(&self) -> Result<()> {
        let path = self.path.to_str().context("a path that is text")?;
        write(path, &serde_json::to_string_pretty(&self.known)?, 0o600)
    }
}

fn config(order: &ListenerOrder) -> Result<Config> {
    ensure!(
        !order.listen.is_empty(),
        "the tenant asks for a listener at no address"
    );
    let servers = order.servers.iter().map(|server| {
        let parsed = server.parse();
        parsed.with_context(|| format!("the tenant's listener is to dial {server:?}"))
    });
    Ok(Config {
        listen: order.listen.clone(),
        servers: servers.collect::<Result<_>>()?,
        name: order.name.clone(),
    })
}

/// Takes from the machine what listeners gave it; none listens any more.
pub(crate) fn forget(path: &Path) -> Result<()> {
    for address in read(path)?.addresses {
        withdraw(address).with_context(|| format!("taking {address} from the machine"))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Known> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use tokio::task::spawn_blocking;

    use super::*;

    /// A server that says its name to whoever comes, then what it hears.
    fn server(name: u8) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = socket.accept() {
                std::thread::spawn(move || {
                    let mut heard = [name];
                    while stream.write_all(&heard).is_ok() && stream.read_exact(&mut heard).is_ok()
                    {
                    }
                });
            }
        });
        address
    }

    fn free() -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    }

    fn order(listen: SocketAddr, servers: &[SocketAddr]) -> ListenerOrder {
        ListenerOrder {
            listen: vec![listen],
            servers: servers.iter().map(SocketAddr::to_string).collect(),
            name: None,
        }
    }

    /// A connection, and who answered it.
    async fn reached(at: SocketAddr) -> std::io::Result<(TcpStream, u8)> {
        let dial = move || {
            let mut stream = TcpStream::connect(at)?;
            let mut name = [0];
            stream.read_exact(&mut name)?;
            Ok((stream, name[0]))
        };
        spawn_blocking(dial).await.unwrap()
    }

    /// What is said comes back.
    async fn answers(mut stream: TcpStream) -> bool {
        let say = move || {
            let mut heard = [0];
            stream.write_all(b"x").is_ok() && stream.read_exact(&mut heard).is_ok()
        };
        spawn_blocking(say).await.unwrap()
    }

    #[tokio::test]
    async fn it_is_as_asked_and_another_one_leaves_open_connections_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listener.json");
        let (at, one, two) = (free(), server(b'1'), server(b'2'));
        let mut keeper = Keeper::begin(&path);
        assert!(!keeper.listens() && !keeper.follow(None).unwrap());
        assert!(keeper.follow(Some(order(at, &[one]))).unwrap());
        let (first, name) = reached(at).await.unwrap();
        assert_eq!(name, b'1');
        // It is not known what they lead to now.
        assert!(keeper.follow(Some(order(at, &[]))).unwrap());
        assert_eq!(reached(at).await.unwrap().1, b'1');
        assert!(keeper.follow(Some(order(at, &[two]))).unwrap());
        // The first one takes none any more once it has been polled.
        tokio::task::yield_now().await;
        for _ in 0..9 {
            assert_eq!(reached(at).await.unwrap().1, b'2');
        }
        assert!(answers(first).await);
        assert!(!keeper.follow(None).unwrap());
        tokio::task::yield_now().await;
        assert!(reached(at).await.is_err());
    }

    #[tokio::test]
    async fn what_was_asked_last_is_kept_over_restarts_and_what_cannot_be_done_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listener.json");
        let (at, one) = (free(), server(b'1'));
        let mut keeper = Keeper::begin(&path);
        assert!(keeper.follow(Some(order(at, &[one]))).unwrap());
        keeper.end(Duration::ZERO).await;
        assert!(reached(at).await.is_err());
        let mut keeper = Keeper::begin(&path);
        assert!(keeper.listens());
        assert_eq!(reached(at).await.unwrap().1, b'1');
        // Somebody else has that address, and shares it with nobody.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wrong = order(taken.local_addr().unwrap(), &[one]);
        assert!(keeper.follow(Some(wrong)).is_err());
        assert_eq!(reached(at).await.unwrap().1, b'1');
        assert!(keeper.follow(Some(order(at, &[one]))).unwrap());
        assert!(!keeper.follow(None).unwrap());
        assert!(!Keeper::begin(&path).listens());
        // Which addresses the machine has is not forgotten by that.
        assert!(read(&path).unwrap().addresses.contains(&at.ip()));
        forget(&path).unwrap();
    }

    #[test]
    fn what_this_agent_does_not_know_is_not_taken_for_less() {
        let text = r#"{ "listen": ["192.0.0.64:6443"], "servers": ["a:6443"], "only": "pods" }"#;
        assert!(serde_json::from_str::<ListenerOrder>(text).is_err());
    }
}
