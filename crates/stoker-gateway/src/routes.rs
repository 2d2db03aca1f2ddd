//! Who is reached by which name, and where.
//!
//! ```text
//!   watches or a file ──► Routes::set / remove / keep_only      (control thread)
//!                             │
//!                             ▼
//!               name ──► Route ──► backends: addresses, open connections, failed until
//!                          │ └───► known, and no backend is ready: connections are held here
//!                          ▼
//!                        Tenant: its limits and counters, shared by all of its names
//!                             ▲
//!   ClientHello ──► Routes::find                                 (threads that serve)
//! ```
//! A change touches what it names and nothing else; connections that are open keep what they have.

mod backends;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::backends::{Backend, BackendInUse, Backends};
use crate::tenant::Tenant;
use crate::waker::Waker;

/// How often it is told of one tenant that it is wanted, as long as it sleeps on.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// What a route is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The tenant, whose limits hold for all of its names together.
    pub tenant: Box<str>,
    /// Where its API servers are ready.
    pub backends: Vec<SocketAddr>,
    /// Where the near ends of its tunnel are ready.
    pub tunnel: Vec<SocketAddr>,
    /// Whether backends are told by the PROXY protocol who the client is.
    pub proxy_protocol: bool,
    /// Whether the tenant sleeps.
    pub rest: Rest,
}

/// Whether a tenant sleeps, as far as a connection can do something about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// It is awake, or asleep so that no connection wakes it.
    #[default]
    None,
    /// It sleeps, and whoever wants it wakes it.
    Asleep,
    /// It will be ready soon.
    Waking,
}

/// One name.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// Whether backends are told who the client is.
    pub proxy_protocol: bool,
    backends: Backends,
    tunnel: Backends,
    /// Whether the tenant sleeps, and when somebody was last told that it is wanted.
    rest: Mutex<(Rest, Option<Instant>)>,
    /// Told when there are other backends.
    changed: Notify,
}

/// What of a tenant is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Its API servers.
    Api,
    /// The near ends of its tunnel.
    Tunnel,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Routes {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<str>, Arc<Route>>,
    /// Also those that have no route any more and still have connections.
    tenants: HashMap<Box<str>, Weak<Tenant>>,
}

impl Routes {
    /// The route of this name, in lower case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Route>> {
        self.read().by_name.get(name).cloned()
    }

    /// Makes the route of `name` lead to `target`.
    pub fn set(&self, name: &str, target: &Target) {
        let mut known = self.write();
        if let Some(route) = known.by_name.get(name)
            && route.tenant.name() == &*target.tenant
            && route.proxy_protocol == target.proxy_protocol
        {
            route.lead_to(target);
            return;
        }
        let route = Route {
            tenant: known.tenant(&target.tenant),
            proxy_protocol: target.proxy_protocol,
            backends: Backends::default(),
            tunnel: Backends::default(),
            rest: Mutex::default(),
            changed: Notify::new(),
        };
        route.lead_to(target);
        let former = known.by_name.insert(name.into(), Arc::new(route));
        drop(known);
        if let Some(former) = former {
            former.end();
        }
    }

    /// Makes `name` unknown.
    pub fn remove(&self, name: &str) {
        let removed = self.write().by_name.remove(name);
        // Who is held there need not hope.
        if let Some(route) = removed {
            route.end();
        }
    }

    /// Makes all other names unknown.
    pub fn keep_only(&self, wanted: impl Fn(&str) -> bool) {
        let mut known = self.write();
        known.by_name.retain(|name, route| {
            let keep = wanted(name);
            if !keep {
                route.end();
            }
            keep
        });
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tenants that have a route or a connection.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let known = self.read();
        known.tenants.values().filter_map(Weak::upgrade).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn tenant(&mut self, name: &str) -> Arc<Tenant> {
        if let Some(tenant) = self.tenants.get(name).and_then(Weak::upgrade) {
            return tenant;
        }
        // Each tenant that is gone is passed over once for each doubling of those that are there.
        if self.tenants.len() == self.tenants.capacity() {
            self.tenants.retain(|_, tenant| tenant.strong_count() > 0);
        }
        let tenant = Arc::new(Tenant::new(name));
        self.tenants.insert(name.into(), Arc::downgrade(&tenant));
        tenant
    }
}

impl Route {
    /// The backend to try next: of those not yet `tried` the one with the fewest connections, and one that failed
    /// lately only when there is no other.
    #[must_use]
    pub fn backend(&self, of: Service, tried: &[SocketAddr]) -> Option<BackendInUse> {
        self.backends(of).choose(tried)
    }

    /// Whether there are backends that were not `tried` yet.
    #[must_use]
    pub fn has_other(&self, of: Service, tried: &[SocketAddr]) -> bool {
        self.backends(of).has_other(tried)
    }

    /// Holds a connection until a backend is ready, at most until `deadline`; false if none came.
    ///
    /// Here, and only here, wait the connections to a tenant that is known and not served now. With a `waker` the
    /// connection is one that wakes the tenant if it sleeps.
    pub async fn ready(&self, of: Service, deadline: Instant, waker: Option<&Waker>) -> bool {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if !self.backends(of).is_empty() {
                return true;
            }
            if let Some(waker) = waker {
                waker.ask(self);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Whether the tenant sleeps or wakes.
    #[must_use]
    pub fn rest(&self) -> Rest {
        self.resting().0
    }

    /// Whether the tenant sleeps and nobody was told for a while that it is wanted. Whoever asks tells.
    pub fn wants_waking(&self, now: Instant) -> bool {
        let mut resting = self.resting();
        let (rest, told) = &mut *resting;
        let is_due = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN);
        let wants = *rest == Rest::Asleep && is_due;
        if wants {
            *told = Some(now);
        }
        wants
    }

    fn resting(&self) -> MutexGuard<'_, (Rest, Option<Instant>)> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backends(&self, of: Service) -> &Backends {
        match of {
            Service::Api => &self.backends,
            Service::Tunnel => &self.tunnel,
        }
    }

    fn lead_to(&self, target: &Target) {
        let rests_otherwise = {
            let mut resting = self.resting();
            let other = resting.0 != target.rest;
            if other {
                // Who falls asleep anew is wanted anew.
                *resting = (target.rest, None);
            }
            other
        };
        let changed = [
            self.backends.set(&target.backends),
            self.tunnel.set(&target.tunnel),
            rests_otherwise,
        ];
        if changed.contains(&true) {
            self.changed.notify_waiters();
        }
    }

    /// Nobody is led anywhere any more.
    fn end(&self) {
        self.lead_to(&Target::default());
    }
}

#[cfg(test)]
mod tests;
