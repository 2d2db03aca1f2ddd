//! What is kept in memory between passes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use stoker_api::labels::{GENERATED_BY, PAUSED};
use stoker_api::v1alpha1::{KubeconfigGenerator, TenantControlPlane};
use stoker_control_plane::Names;
use stoker_kube::{Change, Ledger, ObjectKey, Observation};
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc};

use super::build::{Inputs, Problem};
use crate::retry::Backoff;
use crate::tenant::state::lock;

/// How long a generator's status may lag behind: many tenants born at once are one reason to write it.
const SOON: Duration = Duration::from_secs(1);

/// Labels of namespaces, by name.
pub type NamespaceLabels = HashMap<String, BTreeMap<String, String>>;

/// What all passes over kubeconfigs share.
pub struct Kubeconfigs {
    /// All generators.
    pub generators: Store<KubeconfigGenerator>,
    /// Asked for once a generator selects by namespace: until then nobody watches namespaces.
    pub namespaces_needed: Notify,
    /// `None` until they are listed.
    pub namespaces: Mutex<Option<NamespaceLabels>>,
    /// Failures in a row, per tenant.
    pub tenant_failures: Backoff<ObjectRef<TenantControlPlane>>,
    /// Failures in a row, per generator.
    pub generator_failures: Backoff<ObjectRef<KubeconfigGenerator>>,
    tenants: Mutex<HashMap<ObjectRef<TenantControlPlane>, Arc<TenantKubeconfigs>>>,
    wake_tenant: mpsc::UnboundedSender<ObjectRef<TenantControlPlane>>,
    wake_generator: mpsc::UnboundedSender<ObjectRef<KubeconfigGenerator>>,
    soon: Arc<Mutex<BTreeSet<String>>>,
}

/// Whom [`Kubeconfigs`] woke.
pub struct Woken {
    /// Tenants.
    pub tenants: mpsc::UnboundedReceiver<ObjectRef<TenantControlPlane>>,
    /// Generators.
    pub generators: mpsc::UnboundedReceiver<ObjectRef<KubeconfigGenerator>>,
}

/// The generators that a tenant has to do with.
#[derive(Default)]
pub struct Selected {
    /// These want a kubeconfig of it.
    pub wanted: Vec<Arc<KubeconfigGenerator>>,
    /// What these have made stays as it is: they are paused, or it is not known yet what they select.
    pub untouched: BTreeSet<String>,
}

impl Kubeconfigs {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(generators: Store<KubeconfigGenerator>) -> (Self, Woken) {
        let (wake_tenant, tenants) = mpsc::unbounded_channel();
        let (wake_generator, woken_generators) = mpsc::unbounded_channel();
        let new = Self {
            generators,
            namespaces_needed: Notify::default(),
            namespaces: Mutex::default(),
            tenant_failures: Backoff::default(),
            generator_failures: Backoff::default(),
            tenants: Mutex::default(),
            wake_tenant,
            wake_generator,
            soon: Arc::default(),
        };
        let woken = Woken {
            tenants,
            generators: woken_generators,
        };
        (new, woken)
    }

    /// Asks for a pass over the kubeconfigs of `tenant`. Nobody listens any more only while the process ends.
    pub fn wake(&self, tenant: ObjectRef<TenantControlPlane>) {
        let _ = self.wake_tenant.send(tenant);
    }

    /// Asks for a pass over a generator.
    pub fn wake_generator(&self, name: &str) {
        let _ = self.wake_generator.send(ObjectRef::new(name));
    }

    /// Asks for a pass over a generator in a while.
    pub fn wake_generator_soon(&self, name: &str) {
        if !lock(&self.soon).insert(name.to_owned()) {
            return;
        }
        let (wake, soon) = (self.wake_generator.clone(), Arc::clone(&self.soon));
        let name = name.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            lock(&soon).remove(&name);
            let _ = wake.send(ObjectRef::new(&name));
        });
    }

    /// What is kept of `tenant`, made on first use.
    pub fn state(&self, tenant: &ObjectRef<TenantControlPlane>) -> Arc<TenantKubeconfigs> {
        lock(&self.tenants)
            .entry(tenant.clone())
            .or_default()
            .clone()
    }

    /// What is kept of `tenant`, if anything is.
    pub fn get(&self, tenant: &ObjectRef<TenantControlPlane>) -> Option<Arc<TenantKubeconfigs>> {
        lock(&self.tenants).get(tenant).cloned()
    }

    /// A tenant, or its labels, changed.
    pub fn saw_tenant(&self, tenant: &ObjectRef<TenantControlPlane>) {
        if !self.generators.is_empty() || self.get(tenant).is_some() {
            self.wake(tenant.clone());
        }
    }

    /// A tenant is gone, and with it its kubeconfigs.
    pub fn forget(&self, tenant: &ObjectRef<TenantControlPlane>) {
        let known = lock(&self.tenants).remove(tenant);
        for generator in known.iter().flat_map(|state| state.generators()) {
            self.wake_generator_soon(&generator);
        }
    }

    /// A Secret of `tenant` changed: one that kubeconfigs are made from, or one of them.
    pub fn saw_secret(&self, tenant: &ObjectRef<TenantControlPlane>, change: &Change) {
        let name = change.key.name();
        let known = self.get(tenant);
        let is_ours = !change.deleted && change.label(GENERATED_BY).is_some();
        if known.is_none() && !is_ours && self.generators.is_empty() {
            return;
        }
        let names = Names::of_named(&tenant.name);
        if name == names.ca || name == names.admin_kubeconfig {
            self.state(tenant).unsettle();
            self.wake(tenant.clone());
            return;
        }
        let Some(state) = known.or_else(|| is_ours.then(|| self.state(tenant))) else {
            return;
        };
        if is_ours && !state.ledger.knows(&change.key) {
            state.ledger.expect(&change.key);
        }
        if state.ledger.observe(change) == Observation::Changed {
            state.unsettle();
            self.wake(tenant.clone());
        }
    }

    /// Whether `generator` selects `tenant`; `None` while the labels of namespaces are not known.
    pub fn selects(
        &self,
        generator: &KubeconfigGenerator,
        tenant: &TenantControlPlane,
    ) -> Option<bool> {
        let spec = &generator.spec;
        if !spec.tenant_control_plane_selector.matches(tenant.labels()) {
            return Some(false);
        }
        if spec.namespace_selector.is_empty() {
            return Some(true);
        }
        let namespaces = lock(&self.namespaces);
        let Some(namespaces) = &*namespaces else {
            self.namespaces_needed.notify_one();
            return None;
        };
        let labels = namespaces.get(&tenant.namespace().unwrap_or_default());
        Some(labels.is_some_and(|labels| spec.namespace_selector.matches(labels)))
    }

    /// The generators that `tenant` has to do with.
    pub fn selected(&self, tenant: &TenantControlPlane) -> Selected {
        let mut selected = Selected::default();
        for generator in self.generators.state() {
            let selects = self.selects(&generator, tenant);
            if generator.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if generator.annotations().contains_key(PAUSED) || selects.is_none() {
                selected.untouched.insert(generator.name_any());
            } else if selects == Some(true) {
                selected.wanted.push(generator);
            }
        }
        selected
    }
}

/// The kubeconfigs of one tenant.
#[derive(Default)]
pub struct TenantKubeconfigs {
    /// Those that were made, or found made.
    pub ledger: Ledger,
    /// What the last one was made from, by generator.
    settled: Mutex<BTreeMap<String, Inputs>>,
    /// What came of the last pass, by generator: when the certificate is due, or what is wrong.
    results: Mutex<BTreeMap<String, Result<OffsetDateTime, Problem>>>,
    /// Counts changes by others, so that one noticed while a pass works is not taken for seen.
    disturbances: AtomicU64,
}

impl TenantKubeconfigs {
    /// Something was changed: the next pass reads again.
    pub fn unsettle(&self) {
        let mut settled = lock(&self.settled);
        self.disturbances.fetch_add(1, Ordering::AcqRel);
        settled.clear();
    }

    /// To be read before anything else is, and given to [`TenantKubeconfigs::settle`].
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::Acquire)
    }

    /// The kubeconfig made from `inputs` is there, unless others changed something since `disturbances` were counted.
    pub fn settle(&self, generator: &str, inputs: Inputs, disturbances: u64) {
        let mut settled = lock(&self.settled);
        if self.disturbances() == disturbances {
            settled.insert(generator.to_owned(), inputs);
        }
    }

    /// When the certificate is due, if the kubeconfig is there as `inputs` have it.
    pub fn is_settled(
        &self,
        generator: &str,
        inputs: &Inputs,
        now: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        if lock(&self.settled).get(generator) != Some(inputs) {
            return None;
        }
        let due = self.result(generator)?.ok()?;
        (now < due).then_some(due)
    }

    /// What came of the last pass.
    pub fn result(&self, generator: &str) -> Option<Result<OffsetDateTime, Problem>> {
        lock(&self.results).get(generator).cloned()
    }

    /// Records what came of a pass; true when the generator's status says something else now.
    pub fn record(&self, generator: &str, result: Result<OffsetDateTime, Problem>) -> bool {
        let new = result.as_ref().err().cloned();
        let old = lock(&self.results).insert(generator.to_owned(), result);
        old.is_none_or(|old| old.err() != new)
    }

    /// Forgets all but what `keep` names; returns whose were forgotten.
    pub fn retain(&self, keep: &BTreeSet<String>) -> Vec<String> {
        let mut forgotten = self.generators();
        forgotten.retain(|generator| !keep.contains(generator));
        lock(&self.settled).retain(|generator, _| keep.contains(generator));
        lock(&self.results).retain(|generator, _| keep.contains(generator));
        forgotten
    }

    /// Those of which something is known.
    pub fn generators(&self) -> Vec<String> {
        lock(&self.results).keys().cloned().collect()
    }

    /// Whether a Secret of others stands where one of ours belongs.
    pub fn is_blocked(&self) -> bool {
        let results = lock(&self.results);
        let blocked = |result: &Result<_, _>| matches!(result, Err(Problem::Foreign(_)));
        results.values().any(blocked)
    }

    /// When the next certificate is due.
    pub fn next_due(&self) -> Option<OffsetDateTime> {
        let results = lock(&self.results);
        let due = results.values().filter_map(|result| result.as_ref().ok());
        due.min().copied()
    }

    /// The Secrets made that are none of `keep`.
    pub fn others(&self, keep: &BTreeSet<String>) -> Vec<ObjectKey> {
        let mut keys = self.ledger.keys();
        keys.retain(|key| !keep.contains(key.name()));
        keys
    }
}

#[cfg(test)]
mod tests;
