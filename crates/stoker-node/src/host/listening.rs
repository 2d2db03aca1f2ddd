//! The listener as a part of `stoker-node run`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stoker_api::host_agent::ListenerOrder;
use stoker_node::listener::{Config, Listener};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long connections may live on where another listener takes new ones; watches are renewed by their clients in that time.
pub(crate) const DRAIN: Duration = Duration::from_mins(10);

/// Keeps the listener that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    running: Option<Running>,
    /// All of them, those that end too.
    listeners: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    order: ListenerOrder,
    /// Dropped, it takes no more connections.
    _stop: oneshot::Sender<()>,
}

impl Listening {
    /// Does what is asked; what was done before goes on where that fails.
    pub(crate) fn follow(&mut self, asked: Option<&ListenerOrder>) -> Result<()> {
        let Some(asked) = asked else {
            self.running = None;
            return Ok(());
        };
        if self.running.as_ref().is_none_or(|now| now.order != *asked) {
            let listener = Listener::open(config(asked)?)?;
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async {
                drop(stopped.await);
                DRAIN
            };
            // The one before lets open connections live on.
            while self.listeners.try_join_next().is_some() {}
            self.listeners.spawn(listener.run(stopped));
            self.running = Some(Running {
                order: asked.clone(),
                _stop: stop,
            });
        }
        Ok(())
    }

    /// Whether connections of listeners of before live on.
    pub(crate) fn drains(&mut self) -> bool {
        while self.listeners.try_join_next().is_some() {}
        self.listeners.len() > usize::from(self.running.is_some())
    }

    /// Takes no more connections, and lets those that are open live on for a while.
    pub(crate) async fn end(&mut self) {
        self.running = None;
        while self.listeners.join_next().await.is_some() {}
    }
}

fn config(order: &ListenerOrder) -> Result<Config> {
    ensure!(
        !order.listen.is_empty(),
        "the listener is to be at no address"
    );
    for address in &order.listen {
        let ip = address.ip();
        let is_own = order.servers.contains(&address.to_string());
        ensure!(
            !(ip.is_unspecified() || ip.is_multicast() || is_own),
            "the listener is not to be at {address}: that is any address, nobody's, or what it dials"
        );
    }
    let servers = order.servers.iter().map(|server| {
        let parsed = server.parse();
        parsed.with_context(|| format!("the listener is to dial {server:?}"))
    });
    Ok(Config {
        listen: order.listen.clone(),
        servers: servers.collect::<Result<_>>()?,
        name: order.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use tokio::task::{spawn_blocking, yield_now};
    use tokio::time::{sleep, timeout};

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

    fn order(listen: SocketAddr, server: SocketAddr) -> ListenerOrder {
        ListenerOrder {
            listen: vec![listen],
            servers: vec![server.to_string()],
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

    /// Until the one before takes no more.
    async fn settled() {
        for _ in 0..9 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn it_is_as_asked_and_another_one_leaves_open_connections_alone() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let (one, two) = (server(b'1'), server(b'2'));
        let mut listening = Listening::default();
        listening.follow(None).unwrap();
        listening.follow(Some(&order(at, one))).unwrap();
        let (first, name) = reached(at).await.unwrap();
        assert_eq!(name, b'1');
        listening.follow(Some(&order(at, two))).unwrap();
        settled().await;
        for _ in 0..9 {
            assert_eq!(reached(at).await.unwrap().1, b'2');
        }
        assert!(answers(first).await);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = order(taken.local_addr().unwrap(), one);
        assert!(listening.follow(Some(&taken)).is_err());
        assert_eq!(reached(at).await.unwrap().1, b'2');
        for wrong in [order("0.0.0.0:6443".parse().unwrap(), one), order(one, one)] {
            assert!(listening.follow(Some(&wrong)).is_err());
        }
        let (held, _) = reached(at).await.unwrap();
        listening.follow(None).unwrap();
        settled().await;
        assert!(reached(at).await.is_err() && listening.drains());
        drop(held);
        // Nobody is connected any more.
        let over = async {
            while listening.drains() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(9), over).await.unwrap();
    }
}
