//! What the watches have told, joined by tenant: its name comes from one object and its addresses from others.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use kube::runtime::watcher::Event;
use stoker_api::{BaseDomain, StorageId};

use super::objects::{Key, Ports, Slice, Tenant};
use crate::routes::{Rest, Routes, Target};

/// What is known of all tenants; the routes follow from it.
pub(super) struct Directory<'a> {
    domain: BaseDomain,
    routes: &'a Routes,
    known: HashMap<Key, Known>,
    tenants: Round,
    slices: Round,
    /// Where tenants that wake will serve, of those that have nothing that serves.
    starting: BTreeSet<Starting>,
}

/// An API server of a tenant that wakes, which may be ready before its pod is said to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Starting {
    pub(super) tenant: Key,
    /// Where it is asked.
    pub(super) address: SocketAddr,
}

/// What is known of one.
#[derive(Default)]
struct Known {
    id: Option<StorageId>,
    rest: Rest,
    /// The list that named the tenant last.
    round: u32,
    slices: Vec<KnownSlice>,
    /// Of those that start, the ones that said themselves that they are ready.
    early: Vec<SocketAddr>,
}

struct KnownSlice {
    name: Box<str>,
    round: u32,
    ready: Box<[IpAddr]>,
    ending: Box<[IpAddr]>,
    starting: Box<[IpAddr]>,
    ports: Ports,
}

/// Lists of one kind: what a complete one does not name is gone.
#[derive(Default)]
struct Round {
    number: u32,
    complete: bool,
}

impl<'a> Directory<'a> {
    pub(super) fn new(domain: BaseDomain, routes: &'a Routes) -> Self {
        Self {
            domain,
            routes,
            known: HashMap::new(),
            tenants: Round::default(),
            slices: Round::default(),
            starting: BTreeSet::new(),
        }
    }

    /// API servers to ask whether they are ready: connections are held for them.
    pub(super) const fn starting(&self) -> &BTreeSet<Starting> {
        &self.starting
    }

    /// One of them is. Nothing happens if it is none of them any more.
    pub(super) fn is_ready(&mut self, found: &Starting) {
        if let Some(known) = self.known.get_mut(&found.tenant)
            && self.starting.contains(found)
        {
            known.early.push(found.address);
            self.publish(&found.tenant);
        }
    }

    /// Whether a first list of each kind is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.tenants.complete && self.slices.complete
    }

    pub(super) fn tenant(&mut self, event: Event<Tenant>) {
        match event {
            Event::Init => self.tenants.number = self.tenants.number.wrapping_add(1),
            Event::InitApply(tenant) | Event::Apply(tenant) => {
                self.tenant_there(&tenant);
            }
            Event::Delete(tenant) => self.tenant_gone(&tenant.key()),
            Event::InitDone => {
                self.tenants.complete = true;
                let round = self.tenants.number;
                let gone = self.keys(|known| known.round != round);
                for key in gone {
                    self.tenant_gone(&key);
                }
            }
        }
    }

    pub(super) fn slice(&mut self, event: Event<Slice>) {
        match event {
            Event::Init => self.slices.number = self.slices.number.wrapping_add(1),
            Event::InitApply(slice) | Event::Apply(slice) => self.slice_there(slice),
            Event::Delete(slice) => {
                if let Some(key) = slice.tenant() {
                    self.slices_gone(&key, |known| *known.name == *slice.name());
                }
            }
            Event::InitDone => {
                self.slices.complete = true;
                let round = self.slices.number;
                let gone = |slice: &KnownSlice| slice.round != round;
                for key in self.keys(|known| known.slices.iter().any(gone)) {
                    self.slices_gone(&key, gone);
                }
            }
        }
    }

    fn tenant_there(&mut self, tenant: &Tenant) {
        let key = tenant.key();
        // A status that was lost comes back with the same id.
        if let Some(id) = &tenant.id {
            let known = self.known.get(&key).and_then(|known| known.id.as_ref());
            if known.is_some_and(|known| known != id) {
                self.tenant_gone(&key);
            }
            self.known.entry(key.clone()).or_default().id = Some(id.clone());
        }
        let known = self.known.entry(key.clone()).or_default();
        (known.round, known.rest) = (self.tenants.number, tenant.rest);
        self.publish(&key);
    }

    fn slice_there(&mut self, slice: Slice) {
        let Some(key) = slice.tenant() else {
            return;
        };
        let known = self.known.entry(key.clone()).or_default();
        known.slices.retain(|other| *other.name != *slice.name());
        known.slices.push(KnownSlice {
            name: slice.name().into(),
            round: self.slices.number,
            ready: slice.ready.into(),
            ending: slice.ending.into(),
            starting: slice.starting.into(),
            ports: slice.ports,
        });
        self.publish(&key);
    }

    fn slices_gone(&mut self, key: &str, gone: impl Fn(&KnownSlice) -> bool) {
        if let Some(known) = self.known.get_mut(key) {
            known.slices.retain(|slice| !gone(slice));
            self.publish(key);
        }
        self.forget_if_empty(key);
    }

    fn tenant_gone(&mut self, key: &str) {
        self.starting.retain(|start| *start.tenant != *key);
        let id = self.known.get_mut(key).and_then(|known| known.id.take());
        if let Some(id) = id
            && self.holder(&id).is_some_and(|holder| *holder == *key)
        {
            self.routes.remove(&self.domain.name_of(&id));
            // Whoever said the same id before has it now: a tenant that was made anew.
            for next in self.keys(|known| known.id.as_ref() == Some(&id)) {
                self.publish(&next);
            }
        }
        self.forget_if_empty(key);
    }

    fn forget_if_empty(&mut self, key: &str) {
        if let Entry::Occupied(known) = self.known.entry(key.into())
            && known.get().id.is_none()
            && known.get().slices.is_empty()
        {
            known.remove();
        }
    }

    fn keys(&self, wanted: impl Fn(&Known) -> bool) -> Vec<Key> {
        let known = self.known.iter();
        let wanted = known.filter(|(_, known)| wanted(known));
        wanted.map(|(key, _)| key.clone()).collect()
    }

    /// The tenant that has the name of `id` now.
    fn holder(&self, id: &StorageId) -> Option<Key> {
        let route = self.routes.find(&self.domain.name_of(id))?;
        Some(route.tenant.name().into())
    }

    /// Makes the tenant's route what is known of it. A name stays with the tenant that has it as long as that one says so.
    fn publish(&mut self, key: &str) {
        let id = self.known.get(key).and_then(|known| known.id.clone());
        let Some(id) = &id else {
            return;
        };
        let says_so = |holder: &Key| {
            let known = self.known.get(holder);
            **holder != *key && known.is_some_and(|known| known.id.as_ref() == Some(id))
        };
        if let Some(holder) = self.holder(id).filter(says_so) {
            tracing::warn!(tenant = key, %holder, storage_id = %id, "the storage id of another tenant: not led to");
            return;
        }
        let Some(known) = self.known.get_mut(key) else {
            return;
        };
        let served = known.served(|ports| ports.api);
        let starting = match known.rest {
            Rest::Asleep | Rest::Waking if served.is_empty() => {
                known.at(|slice| &slice.starting, |ports| ports.api)
            }
            Rest::Asleep | Rest::Waking | Rest::None => Vec::new(),
        };
        let early = |address: &SocketAddr| known.early.contains(address);
        let (early, starting): (Vec<_>, Vec<_>) = starting.into_iter().partition(early);
        let target = Target {
            tenant: key.into(),
            backends: [served, early.clone()].concat(),
            tunnel: known.served(|ports| ports.tunnel),
            proxy_protocol: false,
            rest: known.rest,
        };
        self.routes.set(&self.domain.name_of(id), &target);
        known.early = early;
        self.starting.retain(|start| *start.tenant != *key);
        let starting = starting.into_iter().map(|address| Starting {
            tenant: key.into(),
            address,
        });
        self.starting.extend(starting);
    }
}

impl Known {
    /// Where its pods serve on a port. As kube-proxy does: those that end are better than none.
    fn served(&self, port: fn(&Ports) -> Option<u16>) -> Vec<SocketAddr> {
        let none_ready = self.slices.iter().all(|slice| slice.ready.is_empty());
        let pods: fn(&KnownSlice) -> &[IpAddr] = if none_ready {
            |slice| &slice.ending
        } else {
            |slice| &slice.ready
        };
        self.at(pods, port)
    }

    fn at(
        &self,
        pods: fn(&KnownSlice) -> &[IpAddr],
        port: fn(&Ports) -> Option<u16>,
    ) -> Vec<SocketAddr> {
        let slices = self
            .slices
            .iter()
            .filter_map(|slice| Some((slice, port(&slice.ports)?)));
        let addresses = slices.flat_map(|(slice, port)| {
            let pods = pods(slice).iter();
            pods.map(move |pod| SocketAddr::new(*pod, port))
        });
        addresses.collect()
    }
}

#[cfg(test)]
mod tests;
