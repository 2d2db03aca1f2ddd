//! One tenant, as far as the gateway counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{Places, Turns};

/// One tenant: its name, what it takes, what it took.
#[derive(Debug)]
pub struct Tenant {
    name: Box<str>,
    pub(crate) turns: Turns,
    pub(crate) places: Places,
    /// Connections that were led to a backend.
    pub connections: Count,
    /// Connections refused for a limit.
    pub limited: Count,
    /// Bytes from clients.
    pub received: Count,
    /// Bytes to clients.
    pub sent: Count,
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tenant {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            turns: Turns::default(),
            places: Places::default(),
            connections: Count::default(),
            limited: Count::default(),
            received: Count::default(),
            sent: Count::default(),
        }
    }

    /// What it is called in metrics and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections that are open or held.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.places.taken()
    }
}

/// A tenant's connection; counted until dropped.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Arc<Tenant>);

impl Place {
    /// One of `limit` places.
    pub(crate) fn of(tenant: &Arc<Tenant>, limit: u32) -> Option<Self> {
        tenant.places.enter(limit).then(|| Self(tenant.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.leave();
    }
}
