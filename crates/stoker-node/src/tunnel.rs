//! The tunnel's far end: dials the tenant's wardens, until it holds one connection to each, and opens for them
//! what they ask for.
//!
//! ```text
//!  run: who is missing? ──► dial ──► link ──► hello (which warden is it?) ──► kept, or let go
//!        ▲                             │
//!        └── lost, or certificates changed: a new link, then the old one drains
//! ```

mod backoff;
mod credentials;
mod egress;
mod link;
mod metrics;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{info, warn};

use backoff::Backoff;
use credentials::Credentials;
pub use credentials::Files;
pub use egress::Egress;
pub use metrics::Metrics;
use metrics::Unconnected;

/// Between two looks at the certificates.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });

/// Where the wardens answer.
#[derive(Clone, Debug)]
pub struct Server {
    host: String,
    name: ServerName<'static>,
    port: u16,
}

/// It is not a host and a port.
#[derive(Debug, thiserror::Error)]
#[error("expected host:port, as api.example.com:8132 or [fd00::1]:8132")]
pub struct NotAServer;

impl FromStr for Server {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAServer)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        Ok(Self {
            name: ServerName::try_from(host.clone()).map_err(|_| NotAServer)?,
            host,
            port: port.parse().map_err(|_| NotAServer)?,
        })
    }
}

impl Server {
    /// Where it is now.
    pub(crate) async fn addresses(&self) -> std::io::Result<Vec<std::net::SocketAddr>> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found.collect())
    }
}

/// What the far end is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the wardens answer: one address for all of a tenant's.
    pub server: Server,
    /// Where certificates are.
    pub files: Files,
    /// What may be dialled.
    pub egress: Egress,
}

/// The far end.
#[derive(Debug)]
pub struct FarEnd {
    config: Arc<Config>,
    credentials: Option<Arc<Credentials>>,
    generation: u64,
    links: HashMap<u64, Held>,
    last_link: u64,
    dialling: Option<u64>,
    wanted: usize,
    backoff: Backoff,
    next_dial: Instant,
    metrics: Arc<Metrics>,
}

/// A connection to a warden.
#[derive(Debug)]
struct Held {
    /// Which, once it has said so.
    server: Option<String>,
    /// Of which certificates.
    generation: u64,
    /// Whether the warden is about to end.
    leaving: bool,
    drain: watch::Sender<bool>,
}

/// A link asks whether it is wanted.
#[derive(Debug)]
struct Greeting {
    link: u64,
    server: String,
    count: usize,
    leaving: bool,
    wanted: oneshot::Sender<bool>,
}

type Links = JoinSet<(u64, Result<(), link::Error>)>;

impl FarEnd {
    /// Not yet dialling.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            config: Arc::new(config),
            credentials: None,
            generation: 0,
            links: HashMap::new(),
            last_link: 0,
            dialling: None,
            wanted: 1,
            backoff: Backoff::default(),
            next_dial: Instant::now(),
            metrics,
        }
    }

    /// Keeps links up until `stop`, then lets open streams run on for as long as that says.
    pub async fn run(mut self, stop: impl Future<Output = Duration>) {
        stoker_tunnel::heap::keep_some();
        let mut links = Links::new();
        let (greetings, mut greeted) = mpsc::channel(16);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        let drain = loop {
            let dial = self.dialling.is_none() && self.missing() && self.credentials.is_some();
            tokio::select! {
                drain = &mut stop => break drain,
                _ = looks.tick() => self.look(),
                () = sleep_until(self.next_dial), if dial => self.dial(&mut links, &greetings),
                Some(greeting) = greeted.recv() => self.greet(greeting),
                Some(Ok((link, ended))) = links.join_next() => self.ended(link, ended),
            }
        };
        // Whoever asks now whether it is wanted is not.
        drop(greeted);
        self.links.values().for_each(Held::leave);
        let _ = timeout(drain, async {
            while let Some(ended) = links.join_next().await {
                if let Ok((link, ended)) = ended {
                    self.ended(link, ended);
                }
            }
        })
        .await;
        // Cut with this.
        let cut = self.links.values().filter_map(|held| held.server.as_ref());
        cut.for_each(|server| self.metrics.disconnected(server));
    }

    /// Whether a warden lacks a link made with the present certificates.
    fn missing(&self) -> bool {
        let counts = |held: &&Held| {
            held.server.is_some() && held.generation == self.generation && !held.leaving
        };
        self.links.values().filter(counts).count() < self.wanted
    }

    /// Certificates that have changed make new links, which take the place of the old ones.
    fn look(&mut self) {
        let current = self.credentials.as_deref();
        match self.config.files.read(current) {
            Ok(None) => {}
            Ok(Some(credentials)) => {
                if current.is_some() {
                    info!("the certificates have changed");
                }
                self.credentials = Some(Arc::new(credentials));
                self.generation += 1;
                self.next_dial = Instant::now();
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                warn!(reason, "the certificates cannot be used");
            }
        }
    }

    fn dial(&mut self, links: &mut Links, greetings: &mpsc::Sender<Greeting>) {
        let Some(credentials) = self.credentials.clone() else {
            return;
        };
        self.last_link += 1;
        let id = self.last_link;
        let (drain, draining) = watch::channel(false);
        let held = Held {
            server: None,
            generation: self.generation,
            leaving: false,
            drain,
        };
        self.links.insert(id, held);
        self.dialling = Some(id);
        let task = link::Link {
            id,
            config: self.config.clone(),
            credentials,
            greetings: greetings.clone(),
            draining,
            metrics: self.metrics.clone(),
        };
        links.spawn(async move { (id, task.run().await) });
    }

    /// One link to each warden, the one made last.
    fn greet(&mut self, greeting: Greeting) {
        if greeting.count != self.wanted {
            info!(servers = greeting.count, "there are so many servers");
            self.wanted = greeting.count;
        }
        let Some(asking) = self.links.get_mut(&greeting.link) else {
            return;
        };
        asking.leaving = greeting.leaving;
        // It is known already, and only tells how many there are.
        if asking.server.is_some() {
            let _ = greeting.wanted.send(true);
            return;
        }
        let generation = asking.generation;
        let is_same = |held: &&Held| held.server.as_ref() == Some(&greeting.server);
        let known = self
            .links
            .values()
            .filter(is_same)
            .any(|held| held.generation >= generation);
        self.dialling = None;
        let _ = greeting.wanted.send(!known);
        if known {
            self.metrics.not_connected(Unconnected::Known);
            self.next_dial = Instant::now() + self.backoff.next_draw();
            return;
        }
        self.links.values().filter(is_same).for_each(Held::leave);
        info!(server = greeting.server, "connected");
        self.metrics.connected(&greeting.server);
        if let Some(held) = self.links.get_mut(&greeting.link) {
            held.server = Some(greeting.server);
        }
        self.backoff.reset();
        self.next_dial = Instant::now();
    }

    fn ended(&mut self, link: u64, ended: Result<(), link::Error>) {
        let Some(held) = self.links.remove(&link) else {
            return;
        };
        let why = ended.as_ref().err().map(link::Error::reason);
        let reason = ended
            .err()
            .map(|error| format!("{:#}", anyhow::Error::from(error)));
        if self.dialling == Some(link) {
            self.dialling = None;
            self.next_dial = Instant::now() + self.backoff.next();
            self.metrics
                .not_connected(why.unwrap_or(Unconnected::Protocol));
            warn!(reason, "no connection");
        } else if let Some(server) = held.server {
            // A warden that ends has many agents; they do not all come back in the same moment.
            if !*held.drain.borrow() {
                self.next_dial = self.next_dial.max(Instant::now() + Backoff::moment());
            }
            self.metrics.disconnected(&server);
            info!(server, reason, "disconnected");
        }
    }
}

impl Held {
    fn leave(&self) {
        let _ = self.drain.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
