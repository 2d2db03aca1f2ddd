//! What the tenant asks of this machine's agent: done as it changes, and kept over restarts, since a tenant that sleeps cannot be
//! asked, and is woken by whoever dials it.
//!
//! ```text
//!  cluster-info ──► Asked ──► tried ──► Part::looked (pure): what is done from now on ──► orders.json, labels of the Node
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stoker_api::host_agent::{ListenerOrder, TunnelOrder};
use stoker_api::labels::{LISTENER, TUNNEL};
use stoker_node::listener::withdraw;
use tokio::time::sleep;

use super::listening::{self, Listening};
use super::part::Part;
use super::paths::write;
use super::tunnelling::{self, Tunnelling};
use super::warn;

/// Between two looks whether the tunnel is up.
const UP: Duration = Duration::from_millis(100);

/// What is asked; an error where this version does not know what that is.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) listener: Result<Option<ListenerOrder>>,
    pub(crate) tunnel: Result<Option<TunnelOrder>>,
}

impl Asked {
    /// Without a text nothing is asked.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let mut parts = text.map_or(Ok(Value::Null), serde_json::from_str);
        let mut part = |name: &str| match &mut parts {
            Ok(parts) => Ok(parts.get_mut(name).map(Value::take).unwrap_or_default()),
            Err(error) => Err(anyhow::anyhow!("no JSON: {error}")),
        };
        Self {
            listener: part("listener").and_then(known),
            tunnel: part("tunnel").and_then(known),
        }
    }

    /// Labels of a Node whose agent does all of it that this version knows.
    pub(crate) fn labels(&self) -> Vec<&'static str> {
        let listener = matches!(self.listener, Ok(Some(_))).then_some(LISTENER);
        let tunnel = matches!(self.tunnel, Ok(Some(_))).then_some(TUNNEL);
        listener.into_iter().chain(tunnel).collect()
    }
}

fn known<T: DeserializeOwned>(text: Value) -> Result<Option<T>> {
    serde_json::from_value(text).context("this version does not know it: update the agent")
}

/// On disk. Another version may have written what this one does not know.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    listener: Value,
    tunnel: Value,
    /// What the machine is given for its listener; written before that is done.
    addresses: BTreeSet<IpAddr>,
}

/// Does what is asked.
#[derive(Debug)]
pub(crate) struct Doing {
    path: PathBuf,
    known: Known,
    listener: Part<ListenerOrder>,
    listening: Listening,
    tunnel: Part<TunnelOrder>,
    tunnelling: Tunnelling,
}

/// What is done as it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) listener: bool,
    /// Not known before it has been tried for a while.
    pub(crate) tunnel: Option<bool>,
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
            listener: Part::new(None),
            listening: Listening::default(),
            tunnel: Part::new(None),
            tunnelling,
        }
    }

    /// Begins with what was done last.
    pub(crate) fn begin(&mut self) {
        self.listener = Part::new(or_said(known(self.known.listener.clone())).flatten());
        self.tunnel = Part::new(or_said(known(self.known.tunnel.clone())).flatten());
        self.go_on();
    }

    /// The same beside another process that does it all: nobody is led here before this one does, too. The tunnel is waited for
    /// where the other one has it.
    pub(crate) async fn come_up(&mut self, is_connected: bool) -> Result<()> {
        self.listener = Part::new(known(self.known.listener.clone())?);
        self.tunnel = Part::new(known(self.known.tunnel.clone())?);
        self.tunnelling.follow(self.tunnel.settled())?;
        while is_connected && !self.tunnelling.is_connected() {
            sleep(UP).await;
        }
        self.listening.follow(self.listener.settled())
    }

    /// Does what the tenant asks now.
    pub(crate) fn follow(&mut self, asked: Asked) -> Done {
        let is_asked = !matches!(asked.listener, Ok(None));
        let listener = or_said(asked.listener).flatten().and_then(|order| {
            if order.servers.is_empty() {
                return self.listener.settled().cloned();
            }
            self.note_addresses(&order);
            or_said(self.listening.follow(Some(&order))).map(|()| order)
        });
        self.listener.looked(listener);
        let tunnel = or_said(asked.tunnel).flatten().and_then(|order| {
            if order.server.is_none() {
                return self.tunnel.settled().cloned();
            }
            or_said(self.tunnelling.follow(Some(&order))).map(|()| order)
        });
        self.tunnel.looked(tunnel);
        let done = self.go_on();
        self.keep();
        // A pod of the add-on may have it, as long as one is asked for.
        if !is_asked && self.listener.settled().is_none() && !self.listening.drains() {
            self.give_back();
        }
        done
    }

    /// Does what was asked last, as long as nobody can be asked.
    pub(crate) fn go_on(&mut self) -> Done {
        let listens = or_said(self.listening.follow(self.listener.settled())).is_some();
        let tunnels = or_said(self.tunnelling.follow(self.tunnel.settled())).is_some();
        Done {
            listener: listens && self.listener.is_as_asked(),
            tunnel: if tunnels && self.tunnel.is_as_asked() {
                self.tunnelling.has_connected()
            } else {
                Some(false)
            },
        }
    }

    /// Nobody else does it yet: pods are listened to until the tunnel has nothing more to carry.
    pub(crate) async fn stop(&mut self) {
        self.tunnelling.end(tunnelling::DRAIN).await;
    }

    /// Another process does it all: nothing new is taken, and what is carried may go on for a while.
    pub(crate) async fn hand_over(&mut self) {
        tokio::join!(self.tunnelling.end(listening::DRAIN), self.listening.end());
    }

    /// Ends with what it carries, forgets what was asked, and takes back what the machine was given.
    pub(crate) fn withdraw(mut self) {
        self.listening = Listening::default();
        self.known.listener = Value::Null;
        self.known.tunnel = Value::Null;
        self.give_back();
    }

    fn note_addresses(&mut self, order: &ListenerOrder) {
        let before = self.known.addresses.len();
        let addresses = order.listen.iter().map(SocketAddr::ip);
        self.known.addresses.extend(addresses);
        if self.known.addresses.len() > before {
            self.write();
        }
    }

    fn keep(&mut self) {
        let now = Known {
            listener: json!(self.listener.settled()),
            tunnel: json!(self.tunnel.settled()),
            addresses: self.known.addresses.clone(),
        };
        if now != self.known {
            self.known = now;
            self.write();
        }
    }

    fn give_back(&mut self) {
        if !self.known.addresses.is_empty() {
            std::mem::take(&mut self.known.addresses)
                .into_iter()
                .for_each(take);
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

/// What cannot be done is said.
fn or_said<T>(done: Result<T>) -> Option<T> {
    done.inspect_err(|error| warn(error, "what the tenant asks for is not done here"))
        .ok()
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use tempfile::TempDir;
    use tokio::task::yield_now;

    use super::super::part::PATIENCE;
    use super::*;

    fn asked(listen: SocketAddr, servers: &[&str]) -> Asked {
        let listener = json!({ "listen": [listen], "servers": servers });
        Asked::parse(Some(&json!({ "listener": listener }).to_string()))
    }

    fn some(listen: SocketAddr) -> Asked {
        asked(listen, &["127.0.0.1:1"])
    }

    fn free() -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    }

    fn new(folder: &TempDir) -> Doing {
        Doing::new(&file(folder), Tunnelling::new(None, Arc::default()))
    }

    fn begun(folder: &TempDir) -> Doing {
        let mut doing = new(folder);
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

    #[test]
    fn what_this_version_does_not_know_of_one_part_leaves_the_other() {
        let nothing = Asked::parse(None);
        assert!(nothing.labels().is_empty() && nothing.listener.is_ok());
        let text = r#"{ "listener": { "listen": [], "servers": [], "only": "pods" }, "tunnel": { "server": "a:1" }, "new": 1 }"#;
        let newer = Asked::parse(Some(text));
        assert!(newer.listener.is_err());
        assert_eq!(newer.labels(), [TUNNEL]);
        let broken = Asked::parse(Some("{"));
        assert!(broken.listener.is_err() && broken.tunnel.is_err());
    }

    #[tokio::test]
    async fn what_was_asked_last_is_done_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        let mut doing = begun(&folder);
        assert!(!doing.go_on().listener && doing.follow(some(at)).listener);
        // It is not known what it leads to now.
        assert!(doing.follow(asked(at, &[])).listener);
        doing.hand_over().await;
        assert!(!takes(at).await);
        let mut doing = begun(&folder);
        assert!(takes(at).await && doing.go_on().listener);
        for _ in 0..PATIENCE {
            assert!(takes(at).await);
            assert!(!doing.follow(Asked::parse(None)).listener);
        }
        assert!(!takes(at).await && !begun(&folder).go_on().listener);
        // And the machine has the address no more.
        doing.follow(Asked::parse(None));
        assert_eq!(read(&file(&folder)).unwrap(), Known::default());
    }

    #[tokio::test]
    async fn what_cannot_be_done_as_asked_goes_on_for_a_while_as_it_was_whatever_the_other_part_does()
     {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        // Somebody else has that address, and shares it with nobody.
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let mut doing = begun(&folder);
        assert!(doing.follow(some(at)).listener);
        let with_tunnel = || Asked {
            tunnel: Ok(Some(TunnelOrder {
                server: Some("localhost:1".to_owned()),
            })),
            ..some(taken)
        };
        for _ in 0..PATIENCE {
            assert!(takes(at).await);
            let done = doing.follow(with_tunnel());
            // About to connect.
            assert_eq!((done.listener, done.tunnel), (false, None));
            assert_eq!(doing.go_on(), done);
        }
        assert!(!takes(at).await);
        // A pod may have the address.
        assert!(read(&file(&folder)).unwrap().addresses.contains(&at.ip()));
        let tunnel = begun(&folder).tunnel;
        assert_eq!(
            tunnel.settled().unwrap().server.as_deref(),
            Some("localhost:1")
        );
        assert!(doing.follow(some(at)).listener);
    }

    #[tokio::test]
    async fn who_takes_over_does_all_that_was_done_or_says_no() {
        let folder = tempfile::tempdir().unwrap();
        let at = free();
        let mut first = begun(&folder);
        first.follow(some(at));
        let mut next = new(&folder);
        next.come_up(false).await.unwrap();
        first.hand_over().await;
        assert!(takes(at).await);
        let known = fs::read_to_string(file(&folder)).unwrap();
        let newer = known.replace("\"servers\"", "\"only\": \"pods\", \"servers\"");
        fs::write(file(&folder), newer).unwrap();
        assert!(new(&folder).come_up(false).await.is_err());
        // But not what the machine has, until it is another node.
        assert!(new(&folder).known.addresses.contains(&at.ip()));
        next.withdraw();
        assert_eq!(read(&file(&folder)).unwrap(), Known::default());
    }
}
