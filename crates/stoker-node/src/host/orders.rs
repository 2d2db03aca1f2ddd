//! What the tenant asks of this machine's agent: done as it changes, and kept over restarts, since a tenant that sleeps cannot be
//! asked, and is woken by whoever dials it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoker_api::host_agent::{ListenerOrder, Orders};
use stoker_node::listener::withdraw;
use tokio::time::sleep;

use super::listening::Listening;
use super::paths::write;
use super::tunnelling::Tunnelling;

/// After so many looks in a row that find that something cannot be done as it is asked, it is not done as it was asked before either: a
/// pod of the add-on does it by then.
const PATIENCE: u32 = 3;
const NOT_DONE: &str = "what the tenant asks for is not done here";
/// Between two looks whether the tunnel is up.
const UP: Duration = Duration::from_millis(100);

/// On disk.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    /// [`Orders`] that were followed last. Another version of this program may have written what this one does not know.
    orders: Value,
    /// What the machine is given for its listener; written before that is done.
    addresses: BTreeSet<IpAddr>,
}

/// Does what is asked.
#[derive(Debug)]
pub(crate) struct Doing {
    path: PathBuf,
    known: Known,
    orders: Orders,
    failures: u32,
    listening: Listening,
    tunnelling: Tunnelling,
}

/// What of it is done as it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) listener: bool,
    pub(crate) tunnel: bool,
}

impl Done {
    fn is_all_of(self, asked: &Orders) -> bool {
        (self.listener || asked.listener.is_none()) && (self.tunnel || asked.tunnel.is_none())
    }
}

impl Doing {
    /// Does nothing yet.
    pub(crate) fn new(path: &Path, tunnelling: Tunnelling) -> Self {
        let known = read(path).unwrap_or_else(|error| {
            warn(&error, "the tenant has to be asked what it asks for");
            Known::default()
        });
        Self {
            path: path.to_owned(),
            known,
            orders: Orders::default(),
            failures: 0,
            listening: Listening::default(),
            tunnelling,
        }
    }

    /// Begins with what was followed last.
    pub(crate) fn begin(&mut self) {
        match self.last() {
            Ok(orders) => self.orders = orders,
            Err(error) => warn(&error, "the tenant has to be asked what it asks for"),
        }
        self.go_on();
    }

    /// The same beside another process that does it all: nobody is led here before this one does, too.
    pub(crate) async fn come_up(&mut self) -> Result<()> {
        self.orders = self.last()?;
        self.tunnelling.follow(self.orders.tunnel.as_ref())?;
        while !self.tunnelling.is_connected() {
            sleep(UP).await;
        }
        self.listening.follow(self.orders.listener.as_ref())?;
        Ok(())
    }

    /// Does what the tenant asks now, where this program knows what that is.
    pub(crate) fn follow(&mut self, asked: Result<Orders>) -> Done {
        let asked = asked.map(|asked| asked.or_as(&self.orders));
        let done = match &asked {
            Ok(asked) => {
                self.note_addresses(asked);
                self.try_all(asked)
            }
            Err(error) => {
                warn(error, NOT_DONE);
                Done::default()
            }
        };
        let is_followed = asked.as_ref().is_ok_and(|asked| done.is_all_of(asked));
        self.failures = if is_followed { 0 } else { self.failures + 1 };
        if is_followed || self.failures >= PATIENCE {
            let mut orders = asked.unwrap_or_default();
            orders.listener.take_if(|_| !done.listener);
            orders.tunnel.take_if(|_| !done.tunnel);
            self.settle_for(orders);
        }
        done
    }

    /// Does what was followed last.
    pub(crate) fn go_on(&mut self) -> Done {
        let orders = self.orders.clone();
        self.try_all(&orders)
    }

    /// Nobody else does it yet: pods are listened to until the tunnel has nothing more to carry.
    pub(crate) async fn stop(&mut self) {
        self.tunnelling.end().await;
    }

    /// Another process does it all: nothing new is taken, and what is carried may go on for a while.
    pub(crate) async fn hand_over(&mut self) {
        tokio::join!(self.tunnelling.end(), self.listening.end());
    }

    /// Ends with what it carries, and takes back what the machine was given.
    pub(crate) fn withdraw(self) {
        drop(self.listening);
        for address in self.known.addresses {
            take(address);
        }
    }

    fn last(&self) -> Result<Orders> {
        let orders = Option::<Orders>::deserialize(&self.known.orders);
        let orders = orders.context("this version does not know what the tenant asked for last")?;
        Ok(orders.unwrap_or_default())
    }

    fn try_all(&mut self, orders: &Orders) -> Done {
        Done {
            listener: is_done(self.listening.follow(orders.listener.as_ref())),
            tunnel: is_done(self.tunnelling.follow(orders.tunnel.as_ref())),
        }
    }

    fn note_addresses(&mut self, orders: &Orders) {
        let before = self.known.addresses.len();
        self.known
            .addresses
            .extend(addresses(orders.listener.as_ref()));
        if self.known.addresses.len() > before {
            self.write();
        }
    }

    /// Does this and nothing else, after a restart too.
    fn settle_for(&mut self, orders: Orders) {
        if orders != self.orders {
            self.known.orders = json!(orders);
            self.orders = orders;
            self.write();
        }
        self.go_on();
        // What no listener has any more.
        let kept: BTreeSet<_> = addresses(self.orders.listener.as_ref()).collect();
        if self.known.addresses != kept && !self.listening.drains() {
            self.known
                .addresses
                .difference(&kept)
                .copied()
                .for_each(take);
            self.known.addresses = kept;
            self.write();
        }
    }

    fn write(&self) {
        let write = || {
            let path = self.path.to_str().context("a path that is text")?;
            write(path, &serde_json::to_string_pretty(&self.known)?, 0o600)
        };
        if let Err(error) = write() {
            warn(
                &error,
                "what the tenant asks for is not kept over a restart",
            );
        }
    }
}

fn addresses(listener: Option<&ListenerOrder>) -> impl Iterator<Item = IpAddr> {
    let listen = listener.into_iter().flat_map(|order| &order.listen);
    listen.map(SocketAddr::ip)
}

fn is_done(done: Result<bool>) -> bool {
    done.unwrap_or_else(|error| {
        warn(&error, NOT_DONE);
        false
    })
}

/// Takes from the machine what it was given for a listener; none listens any more.
pub(crate) fn forget(path: &Path) -> Result<()> {
    read(path)?.addresses.into_iter().for_each(take);
    Ok(())
}

fn take(address: IpAddr) {
    if let Err(error) = withdraw(address) {
        tracing::warn!(%address, %error, "this machine has the listener's address until it starts anew");
    }
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

fn warn(error: &anyhow::Error, what: &str) {
    tracing::warn!(error = format!("{error:#}"), "{what}");
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use anyhow::bail;
    use tempfile::TempDir;
    use tokio::task::yield_now;

    use super::*;

    const LISTENS: Done = Done {
        listener: true,
        tunnel: false,
    };

    fn orders(listen: SocketAddr, servers: &[&str]) -> Orders {
        let listener = ListenerOrder {
            listen: vec![listen],
            servers: servers.iter().map(ToString::to_string).collect(),
            name: None,
        };
        Orders {
            listener: Some(listener),
            tunnel: None,
        }
    }

    fn some(listen: SocketAddr) -> Orders {
        orders(listen, &["127.0.0.1:1"])
    }

    fn free() -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    }

    fn begun(folder: &TempDir) -> Doing {
        let mut doing = Doing::new(&file(folder), Tunnelling::default());
        doing.begin();
        doing
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join("orders.json")
    }

    async fn takes(at: SocketAddr) -> bool {
        for _ in 0..9 {
            yield_now().await;
        }
        TcpStream::connect(at).is_ok()
    }

    #[tokio::test]
    async fn what_was_asked_last_is_done_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        let mut doing = begun(&folder);
        assert_eq!(doing.go_on(), Done::default());
        assert_eq!(doing.follow(Ok(some(at))), LISTENS);
        // It is not known what it leads to now.
        assert_eq!(doing.follow(Ok(orders(at, &[]))), LISTENS);
        doing.hand_over().await;
        assert!(!takes(at).await);
        let mut doing = begun(&folder);
        assert!(takes(at).await && doing.go_on() == LISTENS);
        assert_eq!(doing.follow(Ok(Orders::default())), Done::default());
        assert!(!takes(at).await);
        assert_eq!(begun(&folder).go_on(), Done::default());
    }

    #[tokio::test]
    async fn what_cannot_be_done_leaves_what_was_for_a_while_and_is_not_said_to_be_done() {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        // Somebody else has that address, and shares it with nobody.
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = some(socket.local_addr().unwrap());
        for wrong in [Ok(taken), Err("a field that nobody knows")] {
            let mut doing = begun(&folder);
            let asked = || match wrong.clone() {
                Ok(orders) => Ok(orders),
                Err(said) => bail!(said),
            };
            assert_eq!(doing.follow(Ok(some(at))), LISTENS);
            for _ in 1..PATIENCE {
                assert_eq!(doing.follow(asked()), Done::default());
                assert!(takes(at).await);
            }
            assert_eq!(doing.follow(asked()), Done::default());
            assert!(!takes(at).await);
            assert_eq!(begun(&folder).go_on(), Done::default());
            assert_eq!(doing.follow(Ok(some(at))), LISTENS);
        }
    }

    #[tokio::test]
    async fn who_takes_over_does_all_that_was_done_or_says_no() {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        let mut first = begun(&folder);
        first.follow(Ok(some(at)));
        let second = || Doing::new(&file(&folder), Tunnelling::default());
        let mut next = second();
        next.come_up().await.unwrap();
        first.hand_over().await;
        assert!(takes(at).await);
        let known = fs::read_to_string(file(&folder)).unwrap();
        let newer = known.replace("\"servers\"", "\"only\": \"pods\", \"servers\"");
        fs::write(file(&folder), newer).unwrap();
        assert!(second().come_up().await.is_err());
        // But not what the machine has.
        assert!(second().known.addresses.contains(&at.ip()));
    }
}
