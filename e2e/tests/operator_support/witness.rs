//! Watches the management cluster from the side: what was ever said of a tenant, and what must never change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use stoker_api::v1alpha1::TenantControlPlane;
use tokio::task::JoinSet;

/// Secrets whose content must never change once it was stored.
pub(crate) const KEYS: [&str; 4] = [
    "one-ca",
    "one-front-proxy-ca-certificate",
    "one-sa-certificate",
    "one-encryption-config",
];

/// What was seen, by namespace.
#[derive(Default)]
struct Seen {
    conditions: BTreeMap<String, Vec<Condition>>,
    said: BTreeMap<String, BTreeSet<String>>,
    ids: BTreeMap<String, BTreeSet<String>>,
    keys: BTreeMap<(String, String), Value>,
    templates: BTreeMap<String, Value>,
    gone: BTreeSet<String>,
    violations: Vec<String>,
}

/// The watches; they end with the value.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    _watches: JoinSet<()>,
}

impl Witness {
    pub(crate) fn start(client: &Client) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut watches = JoinSet::new();
        watches.spawn(follow(client, &seen, Seen::tenant));
        watches.spawn(follow(client, &seen, Seen::secret));
        watches.spawn(follow(client, &seen, Seen::deployment));
        Self {
            seen,
            _watches: watches,
        }
    }

    /// Whether the tenant's latest conditions hold `reason` for `type_`.
    pub(crate) fn says(&self, namespace: &str, type_: &str, reason: &str) -> bool {
        let seen = self.lock();
        let conditions = seen.conditions.get(namespace);
        conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|found| found.type_ == type_ && found.reason == reason)
        })
    }

    /// The tenant's latest conditions, sorted.
    pub(crate) fn conditions(&self, namespace: &str) -> String {
        let seen = self.lock();
        let conditions = seen.conditions.get(namespace).into_iter().flatten();
        let text = |found: &Condition| {
            format!(
                "{}={} {}: {}",
                found.type_, found.status, found.reason, found.message
            )
        };
        conditions
            .map(text)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Every `type=status/reason` that was ever in its conditions.
    pub(crate) fn said(&self, namespace: &str) -> BTreeSet<String> {
        self.lock().said.get(namespace).cloned().unwrap_or_default()
    }

    /// Forgets what was said.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().said.remove(namespace);
    }

    /// Every storage id that was ever in its status.
    pub(crate) fn ids(&self, namespace: &str) -> BTreeSet<String> {
        self.lock().ids.get(namespace).cloned().unwrap_or_default()
    }

    /// Whether the tenant was deleted.
    pub(crate) fn gone(&self, namespace: &str) -> bool {
        self.lock().gone.contains(namespace)
    }

    /// What the Secret `name` held when it was first seen.
    pub(crate) fn first_content(&self, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().keys.get(&key).cloned()
    }

    /// What changed although it never must.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn tenant(&mut self, namespace: String, tenant: TenantControlPlane, deleted: bool) {
        if deleted {
            self.gone.insert(namespace);
            return;
        }
        let status = tenant.status.unwrap_or_default();
        let said = self.said.entry(namespace.clone()).or_default();
        for found in &status.conditions {
            said.insert(format!("{}={}/{}", found.type_, found.status, found.reason));
        }
        if let Some(storage) = status.storage {
            let ids = self.ids.entry(namespace.clone()).or_default();
            ids.insert(storage.setup.schema);
        }
        self.conditions.insert(namespace, status.conditions);
    }

    fn secret(&mut self, namespace: String, secret: Secret, deleted: bool) {
        let name = secret.name_any();
        if deleted || !KEYS.contains(&name.as_str()) {
            return;
        }
        let content = serde_json::to_value(secret.data).unwrap();
        let violation = format!("{namespace}: Secret {name} was changed");
        let first = self
            .keys
            .entry((namespace, name))
            .or_insert_with(|| content.clone());
        if *first != content {
            self.violations.push(violation);
        }
    }

    fn deployment(&mut self, namespace: String, deployment: Deployment, deleted: bool) {
        if deleted {
            return;
        }
        let template = serde_json::to_value(deployment.spec.unwrap().template).unwrap();
        let violation = format!("{namespace}: the Deployment's template was changed");
        let first = self
            .templates
            .entry(namespace)
            .or_insert_with(|| template.clone());
        if *first != template {
            self.violations.push(violation);
        }
    }
}

fn follow<K>(
    client: &Client,
    seen: &Arc<Mutex<Seen>>,
    note: fn(&mut Seen, String, K, bool),
) -> impl Future<Output = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let objects = Api::<K>::all(client.clone());
    let seen = seen.clone();
    async move {
        let mut events =
            std::pin::pin!(watcher::watcher(objects, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            let (object, deleted) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                Ok(Event::Delete(object)) => (object, true),
                Ok(Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    eprintln!("the witness's watch broke: {error}");
                    continue;
                }
            };
            let namespace = object.namespace().unwrap_or_default();
            note(
                &mut seen.lock().unwrap_or_else(PoisonError::into_inner),
                namespace,
                object,
                deleted,
            );
        }
    }
}
