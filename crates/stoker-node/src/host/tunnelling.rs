//! The tunnel as a part of `stoker-node run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoker_api::host_agent::TunnelOrder;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files, Metrics};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::paths::{AUTHORITY, CERTIFICATE, SERVING};

/// How long open streams may run on at the end.
const DRAIN: Duration = Duration::from_secs(25);

/// Keeps the tunnel that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Tunnelling {
    /// Where `join --tunnel` says, whatever the tenant asks.
    server: Option<String>,
    metrics: Arc<Metrics>,
    running: Option<Running>,
    /// All of them, those that end too.
    far_ends: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    order: TunnelOrder,
    /// Dropped, it ends.
    _stop: oneshot::Sender<()>,
}

impl Tunnelling {
    pub(crate) fn new(server: Option<String>, metrics: Arc<Metrics>) -> Self {
        Self {
            server,
            metrics,
            ..Self::default()
        }
    }

    /// Does what is asked; whether there is a tunnel then, connected or about to be.
    pub(crate) fn follow(&mut self, asked: Option<&TunnelOrder>) -> Result<bool> {
        let asked = wanted(asked, self.server.as_ref());
        let Some(asked) = asked else {
            self.running = None;
            return Ok(false);
        };
        if self.running.as_ref().is_none_or(|now| now.order != asked) {
            let config = config(&asked)?;
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async { drop(stopped.await) };
            let far_end = FarEnd::new(config, self.metrics.clone());
            // The one before lets open streams run on.
            while self.far_ends.try_join_next().is_some() {}
            self.far_ends.spawn(far_end.run(stopped));
            self.running = Some(Running {
                order: asked,
                _stop: stop,
            });
        }
        Ok(true)
    }

    /// Whether there is a connection, where one is to be.
    pub(crate) fn is_connected(&self) -> bool {
        self.running.is_none() || self.metrics.is_connected()
    }

    /// Takes no more streams, and lets those that are open run on for a while.
    pub(crate) async fn end(&mut self) {
        self.running = None;
        while self.far_ends.join_next().await.is_some() {}
    }
}

fn wanted(asked: Option<&TunnelOrder>, server: Option<&String>) -> Option<TunnelOrder> {
    let own = server.map(|server| TunnelOrder {
        server: Some(server.clone()),
        ..asked.cloned().unwrap_or_default()
    });
    own.or_else(|| asked.cloned())
}

fn config(order: &TunnelOrder) -> Result<Config> {
    let server = order.server.as_deref().unwrap_or_default();
    Ok(Config {
        server: server
            .parse()
            .with_context(|| format!("the tunnel is to dial {server:?}"))?,
        files: Files {
            server_ca: PathBuf::from(AUTHORITY),
            client_certificate: PathBuf::from(CERTIFICATE),
            node_certificate: PathBuf::from(SERVING),
        },
        egress: Egress::new(order.allow.clone(), order.deny.clone()),
        drain: DRAIN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(server: &str) -> TunnelOrder {
        TunnelOrder {
            server: Some(server.to_owned()),
            deny: vec!["10.1.0.0/16".parse().unwrap()],
            ..TunnelOrder::default()
        }
    }

    #[test]
    fn what_join_was_told_is_dialled_by_the_tenants_rules() {
        let own = "b:8132".to_owned();
        assert_eq!(wanted(None, None), None);
        assert_eq!(wanted(Some(&order("a:8132")), None), Some(order("a:8132")));
        let both = wanted(Some(&order("a:8132")), Some(&own));
        assert_eq!(both, Some(order("b:8132")));
        let alone = wanted(None, Some(&own)).unwrap();
        assert_eq!((alone.server, alone.deny.len()), (Some(own), 0));
    }

    #[tokio::test]
    async fn it_is_as_asked_and_what_cannot_be_dialled_is_said() {
        let mut tunnelling = Tunnelling::default();
        assert!(!tunnelling.follow(None).unwrap() && tunnelling.is_connected());
        assert!(tunnelling.follow(Some(&order("localhost:1"))).unwrap());
        assert!(!tunnelling.is_connected());
        assert!(tunnelling.follow(Some(&order("localhost"))).is_err());
        assert!(!tunnelling.follow(None).unwrap() && tunnelling.is_connected());
        tunnelling.end().await;
    }
}
