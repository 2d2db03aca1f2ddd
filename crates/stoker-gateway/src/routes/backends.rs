//! The addresses of one route, and which of them is next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long one that could not be reached is passed over while there are others.
const REST: Duration = Duration::from_secs(2);

/// One address.
#[derive(Debug)]
pub struct Backend {
    /// Where it is.
    pub address: SocketAddr,
    open: AtomicU32,
    /// When it is tried again like the others.
    rests_until: Mutex<Option<Instant>>,
}

/// A backend that has a connection, or is about to get one; counted until dropped.
#[derive(Debug)]
pub struct BackendInUse(Arc<Backend>);

/// Those of one route.
#[derive(Debug, Default)]
pub struct Backends {
    all: Mutex<Arc<[Arc<Backend>]>>,
    /// Where the search begins, so that equals take turns.
    turn: AtomicU32,
}

impl Backends {
    /// Makes it these; true if they were others. What is known of those that stay is kept.
    pub(super) fn set(&self, addresses: &[SocketAddr]) -> bool {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        let mut all = lock(&self.all);
        if all
            .iter()
            .map(|backend| backend.address)
            .eq(addresses.iter().copied())
        {
            return false;
        }
        let known = |address: SocketAddr| {
            let known = all.iter().find(|backend| backend.address == address);
            known
                .cloned()
                .unwrap_or_else(|| Arc::new(Backend::new(address)))
        };
        *all = addresses.into_iter().map(known).collect();
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.all).is_empty()
    }

    /// Whether there are others than those.
    pub(super) fn has_other(&self, tried: &[SocketAddr]) -> bool {
        let all = lock(&self.all);
        all.iter().any(|backend| !tried.contains(&backend.address))
    }

    pub(super) fn choose(&self, tried: &[SocketAddr]) -> Option<BackendInUse> {
        let all = lock(&self.all).clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize % all.len().max(1);
        let (before, from) = all.split_at(turn);
        let left = from.iter().chain(before);
        let left = left.filter(|backend| !tried.contains(&backend.address));
        let best =
            left.min_by_key(|backend| (backend.rests(), backend.open.load(Ordering::Relaxed)))?;
        best.open.fetch_add(1, Ordering::Relaxed);
        Some(BackendInUse(best.clone()))
    }
}

impl Backend {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: AtomicU32::new(0),
            rests_until: Mutex::new(None),
        }
    }

    fn rests(&self) -> bool {
        lock(&self.rests_until).is_some_and(|until| Instant::now() < until)
    }
}

impl BackendInUse {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// It could not be reached.
    pub fn failed(&self) {
        *lock(&self.0.rests_until) = Some(Instant::now() + REST);
    }

    /// It was reached.
    pub fn answered(&self) {
        *lock(&self.0.rests_until) = None;
    }
}

impl Drop for BackendInUse {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
