//! What is kept in memory between passes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use stoker_api::labels::JOIN_TOKEN;
use stoker_api::v1alpha1::{JoinToken, TenantControlPlane};
use stoker_kube::Change;
use tokio::sync::{Notify, mpsc};

use crate::retry::Backoff;
use crate::tenant::state::lock;

/// What all passes over tokens share.
pub struct JoinTokens {
    /// All tokens.
    pub tokens: Store<JoinToken>,
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
        let mut tokens = self.tokens.state();
        tokens.retain(|token| tenant_of(token) == *tenant);
        tokens
    }

    /// The networks that the addresses of nodes must be in, of those that joined `tenant` by a token that says so.
    pub fn networks(&self, tenant: &ObjectRef<TenantControlPlane>) -> BTreeMap<String, Vec<IpNet>> {
        let mut networks = BTreeMap::new();
        for token in self.of(tenant) {
            let allowed = token.spec.node_networks.iter();
            let allowed: Vec<IpNet> = allowed.filter_map(|text| text.parse().ok()).collect();
            let nodes = token.status.iter().flat_map(|status| &status.nodes);
            if !token.spec.node_networks.is_empty() {
                networks.extend(nodes.map(|node| (node.name.clone(), allowed.clone())));
            }
        }
        networks
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
        if !self.tokens.is_empty() {
            for token in self.of(tenant) {
                self.wake(ObjectRef::from_obj(token.as_ref()));
            }
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
