//! What is kept in memory between passes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use stoker_api::labels::JOIN_TOKEN;
use stoker_api::v1alpha1::{JoinToken, TenantControlPlane};
use stoker_kube::Change;
use tokio::sync::{Notify, mpsc};

use super::decision::networks;
use crate::retry::Backoff;
use crate::tenant::state::lock;

/// What all passes over tokens share.
pub struct JoinTokens {
    /// All tokens.
    pub tokens: Store<JoinToken>,
    /// Their names, by tenant.
    by_tenant: Mutex<HashMap<ObjectRef<TenantControlPlane>, BTreeSet<String>>>,
    /// Whether these are all that there are.
    known: AtomicBool,
    /// Failures in a row, per token.
    pub failures: Backoff<ObjectRef<JoinToken>>,
    wake: mpsc::UnboundedSender<ObjectRef<JoinToken>>,
    connections: Mutex<HashMap<ObjectRef<TenantControlPlane>, Connected>>,
    published: Mutex<HashMap<ObjectRef<JoinToken>, Published>>,
    /// Numbers the connections.
    next: AtomicU64,
}

/// What was last published of a token: the same is not published again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of the token.
    pub uid: Option<String>,
    /// By which connection.
    pub connection: u64,
    /// Where machines were sent.
    pub server: String,
    /// The public half.
    pub id: String,
}

/// A connection into a tenant.
struct Connected {
    number: u64,
    client: Client,
    changed: Arc<Notify>,
}

/// Tells of one connection as long as it is there.
pub(super) struct Connection {
    number: u64,
    pub(super) changed: Arc<Notify>,
}

impl JoinTokens {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(tokens: Store<JoinToken>) -> (Self, mpsc::UnboundedReceiver<ObjectRef<JoinToken>>) {
        let (wake, woken) = mpsc::unbounded_channel();
        let new = Self {
            tokens,
            by_tenant: Mutex::default(),
            known: AtomicBool::default(),
            failures: Backoff::default(),
            wake,
            connections: Mutex::default(),
            published: Mutex::default(),
            next: AtomicU64::default(),
        };
        (new, woken)
    }

    /// Asks for a pass over a token. Nobody listens any more only while the process ends.
    pub fn wake(&self, token: ObjectRef<JoinToken>) {
        let _ = self.wake.send(token);
    }

    /// The tokens of `tenant`.
    pub fn of(&self, tenant: &ObjectRef<TenantControlPlane>) -> Vec<Arc<JoinToken>> {
        let names = lock(&self.by_tenant).get(tenant).cloned();
        let namespace = tenant.namespace.as_deref().unwrap_or_default();
        let names = names.iter().flatten();
        let tokens = names.filter_map(|name| {
            let token = ObjectRef::new(name).within(namespace);
            self.tokens.get(&token)
        });
        tokens.filter(|token| tenant_of(token) == *tenant).collect()
    }

    /// A token is there, or no longer: to be told before anything else of it.
    pub fn index(&self, token: &JoinToken, exists: bool) {
        let mut by_tenant = lock(&self.by_tenant);
        let tenant = tenant_of(token);
        let names = by_tenant.entry(tenant.clone()).or_default();
        if exists {
            names.insert(token.name_any());
        } else {
            names.remove(&token.name_any());
            if names.is_empty() {
                by_tenant.remove(&tenant);
            }
        }
    }

    /// All tokens were told of, or there is no such kind and so there are none.
    pub fn all_known(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// The networks that the addresses of nodes must be in, of those that joined `tenant` by a token that says so; `None` while
    /// not all tokens are known.
    pub fn networks(
        &self,
        tenant: &ObjectRef<TenantControlPlane>,
    ) -> Option<BTreeMap<String, Vec<IpNet>>> {
        if !self.known.load(Ordering::Acquire) {
            return None;
        }
        let tokens = self.of(tenant);
        let all: Vec<&JoinToken> = tokens.iter().map(AsRef::as_ref).collect();
        Some(networks(&all))
    }

    /// A token changed, or is gone: also whoever attends to its tenant looks.
    pub fn saw(&self, token: &JoinToken) {
        self.wake(ObjectRef::from_obj(token));
        self.look(&tenant_of(token));
    }

    /// Has whoever attends to a tenant look at its tokens.
    pub fn look(&self, tenant: &ObjectRef<TenantControlPlane>) {
        if let Some(connected) = lock(&self.connections).get(tenant) {
            connected.changed.notify_one();
        }
    }

    /// A tenant changed, or is gone.
    pub fn saw_tenant(&self, tenant: &ObjectRef<TenantControlPlane>) {
        for token in self.of(tenant) {
            self.wake(ObjectRef::from_obj(token.as_ref()));
        }
    }

    /// A Secret changed; of those that tokens have made it is one if its label says so. One that is taken away is made anew.
    pub fn saw_secret(&self, change: &Change) {
        if let (true, Some(token), Some(namespace)) = (
            change.deleted,
            change.label(JOIN_TOKEN),
            change.key.namespace(),
        ) {
            let token = ObjectRef::new(token).within(namespace);
            self.forget(&token);
            self.wake(token);
        }
    }

    /// The way into a tenant and its number, while there is one.
    pub fn client(&self, tenant: &ObjectRef<TenantControlPlane>) -> Option<(u64, Client)> {
        let connections = lock(&self.connections);
        let connected = connections.get(tenant)?;
        Some((connected.number, connected.client.clone()))
    }

    /// What was last published of `token`.
    pub fn published(&self, token: &ObjectRef<JoinToken>) -> Option<Published> {
        lock(&self.published).get(token).cloned()
    }

    /// Records what was published of `token`.
    pub fn publish(&self, token: ObjectRef<JoinToken>, published: Published) {
        lock(&self.published).insert(token, published);
    }

    /// Nothing of `token` is taken for published any more.
    pub fn forget(&self, token: &ObjectRef<JoinToken>) {
        lock(&self.published).remove(token);
    }

    pub(super) fn connect(
        &self,
        tenant: &ObjectRef<TenantControlPlane>,
        client: &Client,
    ) -> Connection {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let changed = Arc::new(Notify::new());
        let connected = Connected {
            number,
            client: client.clone(),
            changed: Arc::clone(&changed),
        };
        lock(&self.connections).insert(tenant.clone(), connected);
        self.saw_tenant(tenant);
        Connection { number, changed }
    }

    /// Unless another one has taken its place.
    pub(super) fn disconnect(
        &self,
        tenant: &ObjectRef<TenantControlPlane>,
        connection: &Connection,
    ) {
        let mut connections = lock(&self.connections);
        let ours = |known: &Connected| known.number == connection.number;
        if connections.get(tenant).is_some_and(ours) {
            connections.remove(tenant);
        }
    }
}

/// The tenant that a token is for.
#[must_use]
pub fn tenant_of(token: &JoinToken) -> ObjectRef<TenantControlPlane> {
    let namespace = token.namespace().unwrap_or_default();
    ObjectRef::new(&token.spec.tenant_control_plane).within(&namespace)
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn token(name: &str, tenant: &str) -> JoinToken {
        serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
            "metadata": { "name": name, "namespace": "a" },
            "spec": { "tenantControlPlane": tenant, "nodeNetworks": ["10.7.0.0/16"] },
            "status": { "nodes": [
                { "name": name, "key": "k", "admissionTime": "2026-01-01T00:00:00Z" }
            ] },
        }))
        .unwrap()
    }

    #[test]
    fn a_tenants_tokens_are_found_by_the_tenant_and_bind_nobody_before_all_are_known() {
        let (store, mut writer) = reflector::store();
        let (tokens, _woken) = JoinTokens::new(store);
        for token in [token("x", "one"), token("y", "two"), token("z", "one")] {
            writer.apply_watcher_event(&Event::Apply(token.clone()));
            tokens.index(&token, true);
        }
        let one = ObjectRef::new("one").within("a");
        let names = || {
            let found = tokens.of(&one).into_iter();
            found.map(|token| token.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["x", "z"]);
        assert!(tokens.of(&ObjectRef::new("one").within("b")).is_empty());

        assert_eq!(tokens.networks(&one), None);
        tokens.all_known();
        let bound: Vec<_> = tokens.networks(&one).unwrap().into_keys().collect();
        assert_eq!(bound, ["x", "z"]);

        writer.apply_watcher_event(&Event::Delete(token("x", "one")));
        tokens.index(&token("x", "one"), false);
        assert_eq!(names(), ["z"]);
    }
}
