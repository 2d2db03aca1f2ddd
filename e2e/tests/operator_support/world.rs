//! Many tenants at once, each in a namespace of its own, before an operator whose requests can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::StorageId;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_etcd::{OwnerRecord, Pool, PoolConfig};

use super::bare::{Bare, until};
use super::faults::{Call, Failure, Faults};
use super::in_process::InProcess;
use super::witness::Witness;

/// For a whole batch, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
/// Longer than the operator waits after a first and a second failure (0.5 s and 1 s, with jitter).
pub(crate) const QUIET: Duration = Duration::from_millis(1600);

/// A management cluster, a pool, an operator in this process, and a witness.
pub(crate) struct World {
    // What uses the API server ends before it.
    operator: Option<InProcess>,
    pub(crate) witness: Witness,
    pub(crate) bare: Bare,
    pub(crate) faults: Faults,
    pub(crate) pool: Pool,
    pub(crate) etcd: etcd_client::Client,
}

/// One tenant, about which one request fails.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) namespace: String,
    pub(crate) call: Call,
    pub(crate) failure: Failure,
    /// For how long its data is kept after deletion, in seconds.
    pub(crate) retention: i64,
}

impl std::fmt::Display for Trial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            namespace,
            call,
            failure,
            ..
        } = self;
        write!(formatter, "{namespace} ({failure:?} at {call})")
    }
}

/// Everything at one moment, by namespace.
pub(crate) struct Snapshot {
    pub(crate) tenants: BTreeMap<String, TenantControlPlane>,
    /// `Kind name` and its shape: what is alike for every tenant of one spec.
    pub(crate) objects: BTreeMap<String, BTreeMap<String, Value>>,
    pub(crate) warnings: BTreeMap<String, BTreeSet<String>>,
    pub(crate) users: BTreeSet<String>,
    pub(crate) roles: BTreeSet<String>,
    pub(crate) owners: BTreeMap<String, OwnerRecord>,
    pub(crate) pool_keys: Vec<String>,
}

impl World {
    pub(crate) async fn start() -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let logs = tracing_subscriber::fmt().with_env_filter(filter);
            // Another test of this process may have done so already.
            let _ = logs.with_writer(std::io::stderr).try_init();
        }
        let bare = Box::pin(Bare::start()).await;
        let witness = Witness::start(&bare.client);
        let root = bare.pool.client_certificate("root").unwrap();
        let authority = bare.pool.authority().unwrap().certificate().to_owned();
        let config = PoolConfig {
            endpoints: vec![
                bare.pool
                    .endpoint()
                    .trim_start_matches("https://")
                    .to_owned(),
            ],
            certificate_authority: authority.clone(),
            client_certificate: root.certificate.clone(),
            client_key: root.key.as_pem().to_owned().into(),
        };
        let pool = Pool::connect(&config).await.unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(authority))
            .identity(Identity::from_pem(&root.certificate, root.key.as_pem()));
        let options = ConnectOptions::new().with_tls(tls);
        let etcd = etcd_client::Client::connect([bare.pool.endpoint()], Some(options));
        let etcd = etcd.await.unwrap();
        bare.data_store("default", bare.data_store_spec()).await;
        let mut world = Self {
            bare,
            faults: Faults::default(),
            witness,
            pool,
            etcd,
            operator: None,
        };
        world.restart();
        until("the DataStore is ready", async || {
            let store = world.bare.data_stores().get("default").await.unwrap();
            store.status.is_some_and(|status| status.ready)
        })
        .await;
        world
    }

    /// The operator dies where it stands.
    pub(crate) fn kill(&mut self) {
        self.operator = None;
    }

    /// Another operator starts, which knows nothing of what the former did.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.operator = Some(InProcess::start(
            self.bare.api_server.kubeconfig(),
            &self.faults,
        ));
    }

    /// Creates the tenant `one` with two replicas in a namespace of its own.
    pub(crate) async fn create(&self, namespace: &str, retention: i64) {
        self.bare.namespace(namespace).await;
        let change = json!({
            "controlPlane": { "deployment": { "replicas": 2 } },
            "deletion": { "dataRetentionSeconds": retention },
        });
        self.bare.tenant(namespace, "one", change).await;
    }

    /// The same for all trials.
    pub(crate) async fn create_all(&self, trials: &[Trial]) {
        stream::iter(trials)
            .for_each_concurrent(8, |trial| self.create(&trial.namespace, trial.retention))
            .await;
    }

    /// Whether everything is applied that can be without a node.
    pub(crate) fn applied(&self, namespace: &str) -> bool {
        self.witness
            .says(namespace, "ControlPlaneApplied", "Applied")
            && self.witness.says(namespace, "DataStoreReady", "Claimed")
            && self.witness.says(namespace, "Ready", "PodsStarting")
    }

    /// Waits until `done` holds for every trial.
    pub(crate) async fn all(&self, what: &str, trials: &[Trial], done: impl Fn(&Trial) -> bool) {
        let begun = Instant::now();
        loop {
            let left: Vec<&Trial> = trials.iter().filter(|trial| !done(trial)).collect();
            if left.is_empty() {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let text = |trial: &&Trial| {
                    let sent = self.faults.sent(&trial.namespace);
                    let last = sent.last().map(|sent| sent.call.to_string());
                    format!(
                        "{trial}: {}; last sent: {last:?}",
                        self.witness.conditions(&trial.namespace)
                    )
                };
                let left: Vec<String> = left.iter().map(text).collect();
                assert_right(&format!("{what}, not within {PATIENCE:?}"), &left);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts a key into the tenant's range, as its API server would.
    pub(crate) async fn put_data(&self, namespace: &str) {
        let ids = self.witness.ids(namespace);
        let key = format!("/{}/registry/witness", ids.first().unwrap());
        self.etcd.clone().put(key, namespace, None).await.unwrap();
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        let roles = self.bare.etcdctl(&["role", "list"]).await;
        let roles = roles.into_iter().filter(|role| role != "root").collect();
        let mut snapshot = Snapshot {
            tenants: BTreeMap::new(),
            objects: BTreeMap::new(),
            warnings: BTreeMap::new(),
            users: self.bare.pool_users().await.into_iter().collect(),
            roles,
            owners: BTreeMap::new(),
            pool_keys: self.bare.pool_keys().await,
        };
        for tenant in self.list::<TenantControlPlane>().await {
            snapshot.tenants.insert(tenant.namespace().unwrap(), tenant);
        }
        for event in self.list::<Event>().await {
            if event.type_.as_deref() == Some("Warning") {
                let warnings = snapshot
                    .warnings
                    .entry(event.namespace().unwrap())
                    .or_default();
                warnings.insert(event.reason.unwrap_or_default());
            }
        }
        let objects = &mut snapshot.objects;
        note(objects, self.list::<Secret>().await);
        note(objects, self.list::<ConfigMap>().await);
        note(objects, self.list::<Service>().await);
        note(objects, self.list::<NetworkPolicy>().await);
        note(objects, self.list::<PodDisruptionBudget>().await);
        note(objects, self.list::<Deployment>().await);
        for (id, record) in self.pool.owners().await.unwrap() {
            snapshot.owners.insert(id.to_string(), record);
        }
        snapshot
    }

    /// The version of every object of a tenant, and its own.
    pub(crate) async fn versions(&self, namespace: &str) -> BTreeMap<String, Option<String>> {
        let mut versions = BTreeMap::new();
        macro_rules! add {
            ($($kind:ty),+) => { $(for object in self.list::<$kind>().await {
                if object.namespace().as_deref() == Some(namespace) {
                    let name = format!("{} {}", <$kind>::kind(&()), object.name_any());
                    versions.insert(name, object.resource_version());
                }
            })+ };
        }
        add!(
            Secret,
            ConfigMap,
            Service,
            NetworkPolicy,
            PodDisruptionBudget,
            Deployment,
            TenantControlPlane
        );
        versions
    }

    async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let objects = Api::<K>::all(self.bare.client.clone());
        objects.list(&ListParams::default()).await.unwrap().items
    }
}

impl Snapshot {
    /// The tenant's objects.
    pub(crate) fn of(&self, namespace: &str) -> BTreeMap<String, Value> {
        self.objects.get(namespace).cloned().unwrap_or_default()
    }

    /// The tenant's recorded identity.
    pub(crate) fn id(&self, namespace: &str) -> Option<StorageId> {
        let storage = self
            .tenants
            .get(namespace)?
            .status
            .as_ref()?
            .storage
            .as_ref()?;
        StorageId::try_from(storage.setup.schema.as_str()).ok()
    }

    /// How many keys there are in the range of `id`.
    pub(crate) fn data_of(&self, id: &str) -> usize {
        let prefix = format!("/{id}/");
        self.pool_keys
            .iter()
            .filter(|key| key.starts_with(&prefix))
            .count()
    }
}

fn note<K>(objects: &mut BTreeMap<String, BTreeMap<String, Value>>, found: Vec<K>)
where
    K: Resource<DynamicType = ()> + serde::Serialize,
{
    for object in found {
        let name = format!("{} {}", K::kind(&()), object.name_any());
        let value = serde_json::to_value(&object).unwrap();
        let entries: Vec<String> = value["data"]
            .as_object()
            .map(|data| data.keys().cloned().collect())
            .unwrap_or_default();
        let owners: Vec<&str> = object
            .owner_references()
            .iter()
            .map(|owner| owner.kind.as_str())
            .collect();
        let shape = json!({ "labels": object.labels(), "owners": owners, "data": entries });
        let namespace = object.namespace().unwrap_or_default();
        objects.entry(namespace).or_default().insert(name, shape);
    }
}

/// Fails with what is wrong, if anything is; not with hundreds of lines.
pub(crate) fn assert_right(when: &str, wrong: &[String]) {
    let short = |line: &String| line.chars().take(600).collect::<String>();
    let shown: Vec<String> = wrong.iter().take(20).map(short).collect();
    assert!(
        wrong.is_empty(),
        "{when}: {} things wrong\n{}",
        wrong.len(),
        shown.join("\n")
    );
}
