//! What every pass shares.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use stoker_api::v1alpha1::{DataStore, TenantControlPlane};
use stoker_kube::{Events, RequestCounter, TenantEndpoint, Writer};
use stoker_pki::EscrowKey;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::args::Args;
use crate::data_store::reconcile::data_store_of;
use crate::data_store::{Looks, Pools};
use crate::join_token::JoinTokens;
use crate::kubeconfig_generator::Kubeconfigs;
use crate::management_networks::Networks;
use crate::metrics::{Fleet, Metrics};
use crate::retry::Backoff;
use crate::routes::Routes;
use crate::soon::Soon;
use crate::tenant::Tenants;
use crate::tenant::rollout::Rollouts;

/// How long a tenant may lag behind its pods and what is news of its Deployment, whose status follows theirs within milliseconds.
pub(crate) const TENANT_LAG: Duration = Duration::from_millis(50);
/// How long a `DataStore` may lag behind its tenants: many that come, go or are failed by their pool at once are one
/// reason to look at it.
pub(crate) const DATA_STORE_LAG: Duration = Duration::from_millis(500);

/// Makes the client towards a tenant's API server: [`stoker_kube::tenant_client`], or that with a layer
/// around it.
pub type TenantClient = Arc<
    dyn Fn(&TenantEndpoint, RequestCounter) -> Result<Client, stoker_kube::Error> + Send + Sync,
>;

/// Caches of the management cluster, filled by watches.
pub struct Stores {
    /// All tenants.
    pub tenants: Store<TenantControlPlane>,
    /// All `DataStore`s.
    pub data_stores: Store<DataStore>,
    /// Our Services.
    pub services: Store<Service>,
    /// Our Deployments.
    pub deployments: Store<Deployment>,
}

/// What every pass shares.
pub struct Context {
    /// Command line.
    pub args: Args,
    /// The management cluster.
    pub client: Client,
    /// The way into tenants.
    pub tenant_client: TenantClient,
    /// Server-side apply on the management cluster.
    pub writer: Writer,
    /// Events on the management cluster.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Caches.
    pub stores: Stores,
    /// Networks that control-plane pods must not reach.
    pub management_networks: watch::Receiver<Networks>,
    /// Routes by hostname.
    pub routes: Routes,
    /// Has them found out again: a control-plane pod may have an address in none of them, or a pool other hosts.
    pub networks_doubted: Notify,
    /// Seals the copies of tenants' keys.
    pub escrow_key: EscrowKey,
    /// Connections to the `DataStore`s.
    pub pools: Pools,
    /// When to look at the `DataStore`s.
    pub looks: Looks,
    /// What is kept in memory per tenant.
    pub tenants: Tenants,
    /// Whose pods are being replaced because of us.
    pub rollouts: Rollouts,
    /// Tokens by which machines join.
    pub join_tokens: JoinTokens,
    /// Kubeconfigs that generators ask for.
    pub kubeconfigs: Kubeconfigs,
    /// Bounds the tenants worked on at the same time on the management side. Work inside a tenant holds none:
    /// tenants whose webhooks hang wait for themselves alone.
    pub work: Semaphore,
    /// Asks for a pass over a tenant.
    pub wake: mpsc::UnboundedSender<ObjectRef<TenantControlPlane>>,
    /// Asks for a pass over a `DataStore`.
    pub wake_data_store: mpsc::UnboundedSender<ObjectRef<DataStore>>,
    /// Tenants to be woken in a moment.
    pub soon: Soon<ObjectRef<TenantControlPlane>>,
    /// Tenants to be woken when the next word of how far they have come is due.
    pub later: Soon<ObjectRef<TenantControlPlane>>,
    /// `DataStore`s to be woken in a moment.
    pub data_stores_soon: Soon<ObjectRef<DataStore>>,
    /// Failures in a row, per tenant.
    pub tenant_failures: Backoff<ObjectRef<TenantControlPlane>>,
    /// Failures in a row, per `DataStore`.
    pub data_store_failures: Backoff<ObjectRef<DataStore>>,
}

impl Context {
    /// Counts everything that the caches hold.
    pub fn fleet(&self) -> Fleet {
        Fleet::of(
            self.stores.tenants.state(),
            self.stores.data_stores.state(),
            self.tenants.certificate_dates(),
            Timestamp::now(),
        )
    }

    /// Asks for a pass over `tenant`. Nobody listens any more only while the process ends.
    pub fn wake(&self, tenant: ObjectRef<TenantControlPlane>) {
        let _ = self.wake.send(tenant);
    }

    /// Asks for a pass over every tenant that is in the `DataStore`, or has none yet.
    pub fn wake_tenants_of(&self, data_store: &str) {
        for tenant in self.stores.tenants.state() {
            if data_store_of(&tenant).is_none_or(|name| name == data_store) {
                self.wake(ObjectRef::from_obj(tenant.as_ref()));
            }
        }
    }

    /// Asks for a pass over `tenant` in a moment: what its pods and its Deployment tell comes in bursts.
    pub fn wake_soon(&self, tenant: ObjectRef<TenantControlPlane>) {
        self.soon.ask(tenant);
    }

    /// Asks for a pass over `tenant` for the sake of numbers alone, which nobody waits for.
    pub fn wake_later(&self, tenant: ObjectRef<TenantControlPlane>) {
        self.later.ask(tenant);
    }

    /// A pass over `tenant` begins.
    pub fn looks_at(&self, tenant: &ObjectRef<TenantControlPlane>) {
        self.soon.met(tenant);
        self.later.met(tenant);
    }

    /// Has a `DataStore` looked at in a moment: its pool has failed a tenant, or the data of one may be kept there now.
    pub fn wake_data_store_soon(&self, name: &str) {
        self.looks.ask(name);
        self.recount_data_store(name);
    }

    /// Has the tenants of a `DataStore` counted in a moment: many that come at once are one reason.
    pub fn recount_data_store(&self, name: &str) {
        self.data_stores_soon.ask(ObjectRef::new(name));
    }

    /// Has a `DataStore` looked at.
    pub fn wake_data_store(&self, name: &str) {
        self.looks.ask(name);
        let _ = self.wake_data_store.send(ObjectRef::new(name));
    }

    /// Asks for a pass over every tenant.
    pub fn wake_all_tenants(&self) {
        for tenant in self.stores.tenants.state() {
            self.wake(ObjectRef::from_obj(tenant.as_ref()));
        }
    }
}
