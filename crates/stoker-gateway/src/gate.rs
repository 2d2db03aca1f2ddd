//! What all connections share, and the way of one connection.
//!
//! ```text
//!   accepted ─► PROXY headers: of trusted load balancers, of listeners on nodes ─► ClientHello ─► route, by its name
//!                                                                       │
//!     bytes both ways ◄─ backend that answers ◄─ held until one is ◄─ place and turn
//!     until both end      (others are tried)       ready               of the tenant
//! ```
//! Whoever does not get to the end is refused, with a TLS alert where it speaks TLS.

mod backend;
mod opening;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use stoker_api::wake::PREFIX;
use stoker_sockets::stream::{Silence, Way, join};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use self::backend::{Destination, Reached};
use self::opening::Opening;
use crate::limits::{Limits, Places};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::routes::{Route, Routes, Service};
use crate::tenant::Place;
use crate::waker::Waker;

/// How long who is refused may take to be told.
const GOODBYE: Duration = Duration::from_secs(1);

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of each tenant.
    pub limits: Limits,
    /// Connections of all together.
    pub connections: u32,
    /// Connections that have not said yet whom they want.
    pub openings: u32,
    /// How long a `ClientHello` may take.
    pub hello: Duration,
    /// How long a connection to a tenant that is not served now is held.
    pub hold: Duration,
    /// How long one to a tenant that sleeps or wakes is.
    pub wake_hold: Duration,
    /// How long one address of a tenant may take to be reached.
    pub connect: Duration,
    /// How long one that was reached may take to answer while others were not tried yet.
    pub answer: Duration,
    /// How long streams may be silent.
    pub silence: Silence,
    /// Networks of load balancers that begin with a PROXY protocol header.
    pub proxies: Vec<IpNet>,
}

/// What all connections share.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    routes: Arc<Routes>,
    metrics: Arc<Metrics>,
    connections: Places,
    openings: Places,
    begin: Instant,
    waker: Option<Waker>,
}

impl Gate {
    /// Open, with no connection.
    #[must_use]
    pub fn new(settings: Settings, routes: Arc<Routes>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            routes,
            metrics,
            connections: Places::default(),
            openings: Places::default(),
            begin: Instant::now(),
            waker: None,
        }
    }

    /// The same, which wakes tenants that sleep.
    #[must_use]
    pub fn waking(self, waker: Option<Waker>) -> Self {
        Self { waker, ..self }
    }

    /// Where connections are led.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.connections.taken()
    }

    /// How many may be.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.settings.connections
    }

    /// Leads one connection to its tenant, until it ends.
    pub async fn serve(&self, mut client: TcpStream, peer: SocketAddr) {
        self.metrics.accepted.inc();
        self.metrics.open.inc();
        if let Err(refusal) = self.lead(&mut client, peer).await {
            self.metrics.refused(refusal);
            tracing::debug!(%peer, reason = %refusal, "refused");
            if refusal == Refusal::Waking {
                // A reset: clients of Kubernetes try again, what they read with. It may be gone already.
                let _ = client.set_zero_linger();
            }
            if let Some(alert) = refusal.alert() {
                let goodbye = async {
                    client.write_all(&alert.record()).await?;
                    client.shutdown().await
                };
                // It may be gone already.
                let _ = timeout(GOODBYE, goodbye).await;
            }
        }
        self.metrics.open.dec();
    }

    async fn lead(&self, client: &mut TcpStream, peer: SocketAddr) -> Result<(), Refusal> {
        let _room = Taken::of(&self.connections, self.settings.connections)?;
        let opening = self.opening(client, peer).await?;
        let (route, wakes) = self.route(&opening.name).ok_or(Refusal::UnknownName)?;
        let limit = self.settings.limits.connections;
        let place = Place::of(&route.tenant, limit).ok_or_else(|| {
            route.tenant.limited.add(1);
            Refusal::TenantConnections
        })?;
        let reached = tokio::select! {
            reached = self.reach(&route, wakes, opening, client) => reached?,
            () = opening::left(client) => return Err(Refusal::Left),
        };
        route.tenant.connections.add(1);
        let Reached {
            mut stream,
            backend,
        } = reached;
        let tenant = &place.0;
        let moved = |way, bytes| match way {
            Way::ToServer => tenant.received.add(bytes),
            Way::ToClient => tenant.sent.add(bytes),
        };
        let ended = join(client, &mut stream, self.settings.silence, moved).await;
        tracing::debug!(%peer, tenant = tenant.name(), backend = %backend.address(), ?ended, "ended");
        Ok(())
    }

    /// The route of this name, and whether it is the one that wakes.
    fn route(&self, name: &str) -> Option<(Arc<Route>, bool)> {
        if let Some(route) = self.routes.find(name) {
            return Some((route, false));
        }
        let route = self.routes.find(name.strip_prefix(PREFIX)?)?;
        Some((route, true))
    }

    /// A turn of the tenant, then a backend of it that has what the client said so far.
    async fn reach(
        &self,
        route: &Route,
        wakes: bool,
        opening: Opening,
        client: &TcpStream,
    ) -> Result<Reached, Refusal> {
        let now = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait = route
            .tenant
            .turns
            .take(now, &self.settings.limits)
            .ok_or_else(|| {
                route.tenant.limited.add(1);
                Refusal::TenantRate
            })?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let service = if opening.tunnel {
            Service::Tunnel
        } else {
            Service::Api
        };
        let sent = opening.for_backend(route, client);
        let to = Destination {
            route,
            service,
            waker: self.waker.as_ref().filter(|_| wakes),
        };
        backend::reach(self, &to, &sent, client).await
    }
}

/// One of the gateway's own places, until dropped.
struct Taken<'a>(&'a Places);

impl<'a> Taken<'a> {
    fn of(places: &'a Places, limit: u32) -> Result<Self, Refusal> {
        places
            .enter(limit)
            .then(|| Self(places))
            .ok_or(Refusal::Full)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_takes_and_gives_back_nothing() {
        let places = Places::default();
        let first = Taken::of(&places, 1);
        for _ in 0..3 {
            assert_eq!(Taken::of(&places, 1).err(), Some(Refusal::Full));
            assert_eq!(places.taken(), 1);
        }
        drop(first);
        assert_eq!(places.taken(), 0);
    }
}
