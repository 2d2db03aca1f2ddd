//! The tunnel as a part of `stoker-node run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoker_api::host_agent::TunnelOrder;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files, Metrics};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::paths::{AUTHORITY, CERTIFICATE, SERVING};

/// How long open streams may run on when nobody else serves the node.
pub(crate) const DRAIN: Duration = Duration::from_secs(25);
/// How long it may take to connect before a pod of the add-on is to try.
const CONNECTS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 120 });

/// Keeps the tunnel that is asked for.
#[derive(Debug)]
pub(crate) struct Tunnelling {
    /// Where `join --tunnel` says, whatever the tenant asks.
    own: Option<String>,
    metrics: Arc<Metrics>,
    running: Option<Running>,
    /// All of them, those that end too.
    far_ends: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    server: String,
    since: Instant,
    has_connected: bool,
    stop: oneshot::Sender<Duration>,
}

impl Tunnelling {
    pub(crate) fn new(own: Option<String>, metrics: Arc<Metrics>) -> Self {
        Self {
            own,
            metrics,
            running: None,
            far_ends: JoinSet::new(),
        }
    }

    /// Does what is asked; what was done before goes on where that fails.
    pub(crate) fn follow(&mut self, asked: Option<&TunnelOrder>) -> Result<()> {
        let asked = asked.and_then(|order| order.server.as_ref());
        let Some(server) = self.own.as_ref().or(asked) else {
            self.stop(DRAIN);
            return Ok(());
        };
        if self
            .running
            .as_ref()
            .is_some_and(|now| now.server == *server)
        {
            return Ok(());
        }
        let (server, config) = (server.clone(), config(server)?);
        self.stop(DRAIN);
        while self.far_ends.try_join_next().is_some() {}
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let far_end = FarEnd::new(config, self.metrics.clone());
        self.far_ends.spawn(far_end.run(stopped));
        self.running = Some(Running {
            server,
            since: Instant::now(),
            has_connected: false,
            stop,
        });
        Ok(())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.metrics.is_connected()
    }

    /// Whether it has been connected; not known before it has had its time.
    pub(crate) fn has_connected(&mut self) -> Option<bool> {
        let running = self.running.as_mut()?;
        running.has_connected |= self.metrics.is_connected();
        let is_known = running.has_connected || running.since.elapsed() > CONNECTS;
        is_known.then_some(running.has_connected)
    }

    /// Takes no more streams, and lets those that are open run on for a while.
    pub(crate) async fn end(&mut self, drain: Duration) {
        self.stop(drain);
        while self.far_ends.join_next().await.is_some() {}
    }

    fn stop(&mut self, drain: Duration) {
        if let Some(running) = self.running.take() {
            // One that has ended is ended.
            let _ = running.stop.send(drain);
        }
    }
}

fn config(server: &str) -> Result<Config> {
    Ok(Config {
        server: server
            .parse()
            .with_context(|| format!("the tunnel is to dial {server:?}"))?,
        files: Files {
            server_ca: PathBuf::from(AUTHORITY),
            client_certificate: PathBuf::from(CERTIFICATE),
            node_certificate: PathBuf::from(SERVING),
        },
        egress: Egress::new(Vec::new(), Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(server: &str) -> TunnelOrder {
        TunnelOrder {
            server: Some(server.to_owned()),
        }
    }

    fn dials(tunnelling: &Tunnelling) -> Option<&str> {
        tunnelling.running.as_ref().map(|running| &*running.server)
    }

    #[tokio::test]
    async fn it_is_as_asked_and_what_cannot_be_dialled_changes_nothing() {
        let mut tunnelling = Tunnelling::new(None, Arc::default());
        tunnelling.follow(None).unwrap();
        assert_eq!(dials(&tunnelling), None);
        tunnelling.follow(Some(&order("localhost:1"))).unwrap();
        assert!(tunnelling.follow(Some(&order("localhost"))).is_err());
        assert_eq!(dials(&tunnelling), Some("localhost:1"));
        tunnelling.follow(None).unwrap();
        assert_eq!(dials(&tunnelling), None);
        tunnelling.end(DRAIN).await;
        let mut own = Tunnelling::new(Some("localhost:2".to_owned()), Arc::default());
        own.follow(Some(&order("localhost:1"))).unwrap();
        assert_eq!(dials(&own), Some("localhost:2"));
        own.follow(None).unwrap();
        assert_eq!(dials(&own), Some("localhost:2"));
    }

    #[tokio::test]
    async fn one_that_never_connects_is_left_to_a_pod() {
        let mut tunnelling = Tunnelling::new(None, Arc::default());
        tunnelling.follow(Some(&order("localhost:1"))).unwrap();
        assert_eq!(tunnelling.has_connected(), None);
        tokio::time::sleep(CONNECTS * 2).await;
        assert_eq!(tunnelling.has_connected(), Some(false));
    }
}
