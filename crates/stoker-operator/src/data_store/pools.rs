//! One connection per `DataStore`, shared by all tenants.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use stoker_control_plane::StoragePeer;
use stoker_etcd::Pool;
use stoker_pki::Authority;

use tokio::sync::Semaphore;

use super::credentials::Credentials;
use super::peers::Peers;

/// A `DataStore` that is connected.
#[derive(Clone)]
pub struct OpenPool {
    /// What it was opened with.
    pub credentials: Credentials,
    /// The connection, as etcd's root user.
    pub pool: Pool,
    /// Signs tenants' client certificates.
    pub authority: Arc<Authority>,
    /// Where control-plane pods reach it.
    pub peers: Peers,
    /// Bounds the claims made in the pool at the same time, so that one that hangs holds up only its own tenants.
    pub turns: Arc<Semaphore>,
    /// A revision of the pool and when it was the newest: what is older may be forgotten in time.
    pub checkpoint: Option<(Timestamp, i64)>,
    /// Why tenants cannot be placed or changed here now: condition reason and message.
    pub problem: Option<(&'static str, String)>,
}

/// All `DataStore`s by name.
#[derive(Default)]
pub struct Pools {
    by_name: RwLock<HashMap<String, Entry>>,
}

/// What is known of a `DataStore`.
#[derive(Clone)]
pub enum Entry {
    /// Connected, with or without a problem.
    Open(Arc<OpenPool>),
    /// Its credentials cannot be read: condition reason and message.
    Closed(&'static str, String),
}

impl Pools {
    /// What is known of `name`; `None` until it was looked at.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Why tenants cannot be placed or changed in `name` now, as last seen: condition reason and message.
    #[must_use]
    pub fn problem(&self, name: &str) -> Option<(&'static str, String)> {
        match self.get(name)? {
            Entry::Open(open) => open.problem.clone(),
            Entry::Closed(reason, message) => Some((reason, message)),
        }
    }

    /// Where all of them are, but for pools of pods of this cluster.
    #[must_use]
    pub fn hosts(&self) -> Vec<IpAddr> {
        let pools = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let open = pools.values().filter_map(|entry| match entry {
            Entry::Open(open) => Some(open),
            Entry::Closed(..) => None,
        });
        let peers = open.flat_map(|open| open.peers.list());
        peers.filter_map(|peer| peer.address()).collect()
    }

    /// Records what was found; returns whether tenants have reason to look again.
    pub fn set(&self, name: &str, entry: Entry) -> bool {
        let news = summary(&entry);
        let mut pools = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let before = pools.insert(name.to_owned(), entry);
        before.as_ref().map(summary) != Some(news)
    }

    /// Records why a pool has failed, until what is found of it next is recorded. That tenants look again then is
    /// certain, for they may be told of it meanwhile.
    pub fn suspect(&self, name: &str, problem: (&'static str, String)) {
        let mut pools = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Entry::Open(open)) = pools.get_mut(name)
            && open.problem.is_none()
        {
            *open = Arc::new(OpenPool {
                problem: Some(problem),
                ..OpenPool::clone(open)
            });
        }
    }

    /// Forgets a deleted `DataStore`.
    pub fn remove(&self, name: &str) {
        self.by_name
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

/// What tenants depend on: the reason of a problem, the way in, and the authority.
fn summary(entry: &Entry) -> (Option<&'static str>, Vec<StoragePeer>, String) {
    match entry {
        Entry::Open(open) => (
            open.problem.as_ref().map(|(reason, _)| *reason),
            open.peers.list(),
            format!(
                "{:?}{}",
                open.credentials.endpoints, open.credentials.authority_certificate
            ),
        ),
        Entry::Closed(reason, _) => (Some(reason), Vec::new(), String::new()),
    }
}
