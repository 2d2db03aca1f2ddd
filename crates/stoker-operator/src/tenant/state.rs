//! What is kept in memory per tenant between passes. All of it can be lost: a restart rebuilds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use stoker_api::StorageId;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_control_plane::{Exposure, StoragePeer};
use stoker_kube::Ledger;
use time::OffsetDateTime;

use super::authority;
use super::connection::Credential;
use super::encryption::Underway;
use super::error::Error;
use super::identity;
use super::inside::Inside;
use super::pods::Pods;
use super::routes::Heard;
use super::writes::Verified;
use crate::metrics::CertificateDates;

/// One tenant, in memory.
pub struct TenantState {
    /// `metadata.uid` of the object, once a pass has seen it: an object of the same name made later is
    /// another tenant.
    uid: Mutex<Option<String>>,
    /// When this process first saw the tenant.
    pub first_seen: Instant,
    /// What was applied to the management cluster.
    pub ledger: Ledger,
    /// Its control-plane pods, as last seen.
    pub pods: Mutex<Pods>,
    /// The connection into the tenant. Passes over one tenant never overlap, so it is never waited
    /// for.
    pub inside: tokio::sync::Mutex<Inside>,
    /// A credential for the tenant's API servers that was minted while its keys were at hand. It is used once: whoever
    /// needs another reads the keys.
    pub credential: Mutex<Option<Credential>>,
    /// An identity minted for it that may not be recorded yet: tried again, the same one is recorded, since the answer
    /// may be all that was lost.
    minted: Mutex<Option<StorageId>>,
    /// Where its API server is reached, as the last pass found it.
    pub exposure: Mutex<Option<Exposure>>,
    /// Its identity in the pool, once recorded: the cached object may lag behind.
    pub storage_id: Mutex<Option<StorageId>>,
    /// The status as this process last wrote it: the cached object may lag behind.
    pub written: Mutex<Option<TenantControlPlaneStatus>>,
    /// What the controllers of its routes last said.
    pub routes: Mutex<Heard>,
    /// When it was.
    pub written_at: Mutex<Option<Instant>>,
    /// When the connection into the tenant, or the addresses behind its endpoint, must be looked at again.
    pub look_again: Mutex<Option<OffsetDateTime>>,
    /// Dates of the certificates as last applied; they stay while later passes fail.
    pub certificates: Mutex<Option<CertificateDates>>,
    /// The Deployment as this process last applied it.
    pub deployed: Mutex<Option<Deployed>>,
    /// What its pods are to have read at their start, as this process last applied it.
    pub restart_checksum: Mutex<Option<String>>,
    /// Pods whose API servers were seen to refuse exactly this.
    pub writes: Mutex<Verified>,
    /// What is known of its encryption keys while they change.
    pub encryption: Mutex<Underway>,
    /// What is known of its cluster authority while it changes.
    pub authority: Mutex<authority::Underway>,
    settled: Mutex<Option<Settled>>,
    /// Counts changes by others, so that one noticed while a pass applies is not taken for applied.
    disturbances: AtomicU64,
    claimed: Mutex<bool>,
    /// Set once our finalizer is gone: the cached object may lag behind.
    let_go: AtomicBool,
    /// Set while running pods mount something that changed and their kubelets were not asked to show it.
    pub unrefreshed: AtomicBool,
    /// How often somebody wanted it who found it asleep, and how many of these wishes were heard.
    wishes: AtomicU64,
    heard: AtomicU64,
    /// When somebody last asked anything of its API servers, as last told.
    pub activity: Mutex<Option<Timestamp>>,
    /// Digests of the keys whose escrow copy this process has seen in the pool.
    pub escrowed: Mutex<Vec<[u8; 32]>>,
    /// Edition of the manifest whose copy this process has kept or seen in the pool.
    pub manifest: Mutex<Option<u64>>,
}

/// A Deployment that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// `metadata.generation` of the tenant it was made from.
    pub of: i64,
    /// Its own, as the API server answered.
    pub generation: i64,
    /// `metadata.uid`: one that was deleted and made again counts from the beginning.
    pub uid: Option<String>,
}

/// What the last complete application to the management cluster was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// `metadata.generation`.
    pub generation: i64,
    /// Wanted pods: the time changes them too.
    pub replicas: i32,
    /// Where the API server is reached.
    pub exposure: Exposure,
    /// Where the pool is reached.
    pub peers: Vec<StoragePeer>,
    /// The pool's members.
    pub endpoints: Vec<String>,
    /// The pool's authority, PEM.
    pub pool_authority: String,
    /// What control-plane pods must not reach.
    pub management_networks: Vec<IpNet>,
}

#[derive(Clone, Debug)]
struct Settled {
    inputs: Inputs,
    renew_at: OffsetDateTime,
}

impl Default for TenantState {
    fn default() -> Self {
        Self {
            uid: Mutex::default(),
            first_seen: Instant::now(),
            ledger: Ledger::default(),
            pods: Mutex::default(),
            inside: tokio::sync::Mutex::default(),
            credential: Mutex::default(),
            minted: Mutex::default(),
            exposure: Mutex::default(),
            storage_id: Mutex::default(),
            written: Mutex::default(),
            routes: Mutex::default(),
            written_at: Mutex::default(),
            look_again: Mutex::default(),
            certificates: Mutex::default(),
            deployed: Mutex::default(),
            restart_checksum: Mutex::default(),
            writes: Mutex::default(),
            encryption: Mutex::default(),
            authority: Mutex::default(),
            settled: Mutex::default(),
            disturbances: AtomicU64::default(),
            claimed: Mutex::default(),
            let_go: AtomicBool::default(),
            unrefreshed: AtomicBool::default(),
            wishes: AtomicU64::default(),
            heard: AtomicU64::default(),
            activity: Mutex::default(),
            escrowed: Mutex::default(),
            manifest: Mutex::default(),
        }
    }
}

impl TenantState {
    /// Generation of the Deployment as last applied.
    #[must_use]
    pub fn deployed_generation(&self) -> Option<i64> {
        Some(lock(&self.deployed).as_ref()?.generation)
    }

    /// A pass begins: a look that was due is this one. Whoever needs another asks for it.
    pub fn look(&self, now: OffsetDateTime) {
        lock(&self.look_again).take_if(|due| *due <= now);
    }

    /// Has the tenant looked at again at `at`, unless it is before that anyway.
    pub fn look_again_by(&self, at: OffsetDateTime) {
        let mut look_again = lock(&self.look_again);
        *look_again = Some(look_again.map_or(at, |known| known.min(at)));
    }

    /// The identity minted for the tenant, now or before.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn mint(&self) -> Result<StorageId, Error> {
        let mut minted = lock(&self.minted);
        if let Some(id) = &*minted {
            return Ok(id.clone());
        }
        let id = identity::mint()?;
        *minted = Some(id.clone());
        Ok(id)
    }

    /// Whether the management cluster holds exactly what `inputs` lead to and no certificate is due.
    pub fn is_settled(&self, inputs: &Inputs, now: OffsetDateTime) -> bool {
        lock(&self.settled)
            .as_ref()
            .is_some_and(|settled| settled.inputs == *inputs && now < settled.renew_at)
    }

    /// When the next certificate is due, if everything is applied.
    pub fn renew_at(&self) -> Option<OffsetDateTime> {
        lock(&self.settled).as_ref().map(|settled| settled.renew_at)
    }

    /// To be read before anything is applied, and given to [`TenantState::settle`].
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::Acquire)
    }

    /// Everything that follows from `inputs` is applied, unless others changed something of ours since
    /// `disturbances` were counted.
    pub fn settle(&self, inputs: Inputs, renew_at: OffsetDateTime, disturbances: u64) {
        let mut settled = lock(&self.settled);
        if self.disturbances() == disturbances {
            *settled = Some(Settled { inputs, renew_at });
        }
    }

    /// Something of ours was changed by others: the next pass applies again.
    pub fn unsettle(&self) {
        let mut settled = lock(&self.settled);
        self.disturbances.fetch_add(1, Ordering::AcqRel);
        *settled = None;
    }

    /// Whether this process has already claimed the tenant's place in the pool.
    pub fn is_claimed(&self) -> bool {
        *lock(&self.claimed)
    }

    /// Whether the object was let go: nothing of it is ours to delete any more, perhaps it is a namesake's.
    pub fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Acquire)
    }

    /// Records that the object was let go.
    pub fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }

    /// Somebody wants it who found it asleep.
    pub fn wish(&self) {
        self.wishes.fetch_add(1, Ordering::AcqRel);
    }

    /// How often somebody has wanted it, where not all of these wishes were heard.
    pub fn wishes(&self) -> Option<u64> {
        let wishes = self.wishes.load(Ordering::Acquire);
        (self.heard.load(Ordering::Acquire) < wishes).then_some(wishes)
    }

    /// The first so many wishes are heard.
    pub fn hear(&self, wishes: u64) {
        self.heard.fetch_max(wishes, Ordering::AcqRel);
    }

    /// Records the claim, or that it must be made again.
    pub fn set_claimed(&self, claimed: bool) {
        *lock(&self.claimed) = claimed;
    }
}

/// A lock whose holders leave what it guards whole, whatever they do next.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All tenants in memory.
#[derive(Default)]
pub struct Tenants {
    by_ref: Mutex<HashMap<ObjectRef<TenantControlPlane>, Arc<TenantState>>>,
}

impl Tenants {
    /// The state of `tenant`, made on first use.
    pub fn state(&self, tenant: &ObjectRef<TenantControlPlane>) -> Arc<TenantState> {
        lock(&self.by_ref)
            .entry(tenant.clone())
            .or_default()
            .clone()
    }

    /// The state of the object `uid` named `tenant`. Of a former object of that name, or of what was kept before a pass
    /// saw any, only what watches alone keep is carried over: the pods, what was said of routes, and that somebody wants it.
    pub fn state_of(
        &self,
        tenant: &ObjectRef<TenantControlPlane>,
        uid: Option<&str>,
    ) -> Arc<TenantState> {
        let mut tenants = lock(&self.by_ref);
        let state = tenants.entry(tenant.clone()).or_default().clone();
        let known = lock(&state.uid).clone();
        if known.as_deref() == uid {
            return state;
        }
        let pods = std::mem::take(&mut *lock(&state.pods));
        let routes = std::mem::take(&mut *lock(&state.routes));
        let fresh = Arc::new(TenantState {
            uid: Mutex::new(uid.map(str::to_owned)),
            pods: Mutex::new(pods),
            routes: Mutex::new(routes),
            wishes: AtomicU64::new(state.wishes().unwrap_or_default()),
            ..TenantState::default()
        });
        tenants.insert(tenant.clone(), fresh.clone());
        fresh
    }

    /// Forgets every tenant that is neither named by `exists` nor has pods left.
    pub fn retain(&self, exists: impl Fn(&ObjectRef<TenantControlPlane>) -> bool) {
        lock(&self.by_ref).retain(|tenant, state| exists(tenant) || !lock(&state.pods).is_empty());
    }

    /// The state of `tenant` if it is known.
    pub fn get(&self, tenant: &ObjectRef<TenantControlPlane>) -> Option<Arc<TenantState>> {
        lock(&self.by_ref).get(tenant).cloned()
    }

    /// All that are known.
    pub fn all(&self) -> Vec<(ObjectRef<TenantControlPlane>, Arc<TenantState>)> {
        let tenants = lock(&self.by_ref);
        let pairs = tenants.iter();
        pairs
            .map(|(tenant, state)| (tenant.clone(), state.clone()))
            .collect()
    }

    /// The dates of every tenant's certificates, as far as this process has applied them.
    pub fn certificate_dates(&self) -> Vec<CertificateDates> {
        lock(&self.by_ref)
            .values()
            .filter_map(|state| *lock(&state.certificates))
            .collect()
    }

    /// Forgets a deleted tenant: its connection and watches end.
    pub fn remove(&self, tenant: &ObjectRef<TenantControlPlane>) {
        lock(&self.by_ref).remove(tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            generation: 1,
            replicas: 1,
            exposure: Exposure::default(),
            peers: Vec::new(),
            endpoints: Vec::new(),
            pool_authority: String::new(),
            management_networks: Vec::new(),
        }
    }

    #[test]
    fn a_change_noticed_while_a_pass_applies_is_not_taken_for_applied() {
        let (state, now) = (TenantState::default(), OffsetDateTime::UNIX_EPOCH);
        let later = now + time::Duration::DAY;
        let counted = state.disturbances();
        state.unsettle();
        state.settle(inputs(), later, counted);
        assert!(!state.is_settled(&inputs(), now));
        state.settle(inputs(), later, state.disturbances());
        assert!(state.is_settled(&inputs(), now));
        assert!(!state.is_settled(&inputs(), later), "a certificate is due");
    }

    #[test]
    fn an_object_of_the_same_name_made_later_is_another_tenant() {
        let tenants = Tenants::default();
        let name = ObjectRef::new("one").within("a");
        let first = tenants.state_of(&name, Some("1"));
        first.set_claimed(true);
        assert!(tenants.state_of(&name, Some("1")).is_claimed());
        assert!(!tenants.state_of(&name, Some("2")).is_claimed());
    }

    #[test]
    fn who_is_wanted_before_the_first_pass_is_wanted_in_it() {
        let tenants = Tenants::default();
        let name = ObjectRef::new("one").within("a");
        tenants.state(&name).wish();
        assert!(tenants.state_of(&name, Some("1")).wishes().is_some());
    }

    #[test]
    fn a_look_that_was_due_does_not_come_again_by_itself() {
        let state = TenantState::default();
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
        state.look_again_by(at(5));
        state.look_again_by(at(9));
        state.look(at(4));
        assert_eq!(*lock(&state.look_again), Some(at(5)));
        state.look(at(5));
        assert_eq!(*lock(&state.look_again), None);
        state.look_again_by(at(65));
        assert_eq!(*lock(&state.look_again), Some(at(65)));
    }
}
