//! The `TenantControlPlane` kind.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::version::RELEASE;

use super::audit::LOG_HAS_A_VOLUME;
use super::encryption::SOCKET_HAS_A_MOUNT;
use super::rules::{DNS_LABEL, DNS_NAME};
use super::{
    Addons, ControlPlane, Hibernation, Kubernetes, NetworkProfile, TenantControlPlaneStatus,
};

/// A Kubernetes control plane for one tenant.
///
/// The operator runs kube-apiserver, kube-controller-manager and kube-scheduler as pods in this
/// object's namespace and keeps the tenant's state under a prefix of its own in the `DataStore`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "TenantControlPlane",
    plural = "tenantcontrolplanes",
    shortname = "tcp",
    category = "stoker",
    doc = "A Kubernetes control plane for one tenant.",
    namespaced,
    status = "TenantControlPlaneStatus",
    derive = "PartialEq",
    validation = Rule::new(format!(
        "size(self.metadata.name) <= 63 && self.metadata.name.matches('{DNS_LABEL}')"
    )).message(
        "metadata.name must be a DNS-1035 label: at most 63 lower-case letters, digits and '-', \
         starting with a letter; a Service and labels carry it"
    ),
    validation = Rule::new(DATA_STORE_IS_THE_ONE_IN_USE).message(
        "spec.dataStore cannot change: the tenant's state is in the DataStore of \
         status.storage.dataStoreName"
    ),
    validation = Rule::new(SCHEMA_IS_THE_ONE_IN_USE).message(
        "spec.dataStoreSchema: the tenant lives under status.storage.setup.schema already; another \
         one can only be given to a new tenant"
    ),
    validation = Rule::new(no_second_upgrade()).message(
        "spec.kubernetes.version: the upgrade before is still under way; wait until \
         status.kubernetesResources.version.version shows it"
    ),
    scale(
        spec_replicas_path = ".spec.controlPlane.deployment.replicas",
        status_replicas_path = ".status.kubernetesResources.deployment.replicas",
        label_selector_path = ".status.kubernetesResources.deployment.selector"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.kubernetes.version"
    ),
    printcolumn(
        name = "Installed Version",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.version"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.kubernetesResources.version.status"
    ),
    printcolumn(
        name = "Control-Plane endpoint",
        type_ = "string",
        json_path = ".status.controlPlaneEndpoint"
    ),
    printcolumn(
        name = "Kubeconfig",
        type_ = "string",
        json_path = ".status.kubeconfig.admin.secretName"
    ),
    printcolumn(
        name = "Datastore",
        type_ = "string",
        json_path = ".status.storage.dataStoreName"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Stuck",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Stuck\")].status",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(oldSelf.dataStore) || (has(self.dataStore) && self.dataStore == oldSelf.dataStore)"
    ).message(
        "dataStore cannot be changed or removed once set: the tenant's state would stay behind"
    ),
    validation = Rule::new(
        "!has(oldSelf.dataStoreSchema) || (has(self.dataStoreSchema) && \
         self.dataStoreSchema == oldSelf.dataStoreSchema)"
    ).message("dataStoreSchema cannot be changed or removed once set: it is the tenant's identity"),
    validation = Rule::new(
        "!has(oldSelf.dataStoreUsername) || (has(self.dataStoreUsername) && \
         self.dataStoreUsername == oldSelf.dataStoreUsername)"
    ).message("dataStoreUsername cannot be changed or removed once set: it is the tenant's identity"),
    validation = Rule::new(
        "!has(self.dataStoreUsername) || (has(self.dataStoreSchema) && \
         self.dataStoreUsername == self.dataStoreSchema)"
    ).message("dataStoreUsername is the same storage id as dataStoreSchema; it may be left out"),
    validation = Rule::new(
        "self.controlPlane.service.serviceType != 'NodePort' || has(self.networkProfile.address) || \
         has(self.networkProfile.advertiseAddress)"
    ).message(
        "networkProfile.address is required with serviceType NodePort: give the address of the \
         nodes that people dial"
    ),
    validation = Rule::new(
        "self.controlPlane.service.serviceType == 'LoadBalancer' || \
         !has(self.networkProfile.loadBalancerSourceRanges) || \
         size(self.networkProfile.loadBalancerSourceRanges) == 0"
    ).message("networkProfile.loadBalancerSourceRanges goes with serviceType LoadBalancer alone"),
    validation = Rule::new(
        "self.controlPlane.service.serviceType == 'LoadBalancer' || \
         !has(self.networkProfile.loadBalancerClass)"
    ).message("networkProfile.loadBalancerClass goes with serviceType LoadBalancer alone"),
    validation = Rule::new(SAME_CLASS).message(
        "networkProfile.loadBalancerClass cannot change, be set or be removed while the Service \
         is a LoadBalancer: change serviceType first, or make a new tenant"
    ),
    validation = Rule::new(
        "!has(self.controlPlane.service.additionalPorts) || \
         self.controlPlane.service.additionalPorts.all(p, p.protocol != 'TCP' || p.port != \
         (has(self.networkProfile.port) ? self.networkProfile.port : 6443))"
    ).message("additionalPorts: the API server's own port (networkProfile.port) is taken"),
    validation = Rule::new(TUNNEL_PORT_IS_FREE).message(
        "addons.konnectivity.server.port is taken by the API server (networkProfile.port) or additionalPorts"
    ),
    validation = Rule::new(ISSUERS_ONCE).message(
        "kubernetes.serviceAccountIssuers and --service-account-issuer of extraArgs exclude each other"
    ),
    validation = Rule::new(LOG_HAS_A_VOLUME).message(
        "audit.log.volume must be the name of an emptyDir in deployment.additionalVolumes"
    ),
    validation = Rule::new(SOCKET_HAS_A_MOUNT).message(
        "encryption.kms.endpoint must be in a mount of deployment.additionalVolumeMounts.apiServer"
    )
)]
pub struct TenantControlPlaneSpec {
    /// Name of the `DataStore` that holds this tenant's state. Left out, the operator takes the one
    /// named by its `--datastore` flag, else the only one there is. It cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_NAME}')")).message(
        "dataStore must be the name of a DataStore: lower-case letters, digits, '-' and '.'"
    ))]
    pub data_store: Option<String>,
    /// Storage id of a deleted tenant whose data the `DataStore` keeps (`status.storage.setup.schema` it was): this tenant takes
    /// over its objects and its keys. Refused while the id has another owner. Left out, a new id is minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{32}$')").message(
        "dataStoreSchema must be the storage id of a deleted tenant, 32 characters of 0-9 and a-f; \
         leave it out for a new tenant"
    ))]
    pub data_store_schema: Option<String>,
    /// The user of that storage id in the `DataStore`: the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub data_store_username: Option<String>,
    /// How the control plane runs and is exposed.
    pub control_plane: ControlPlane,
    /// The Kubernetes release of the control plane and the settings of its kubelets.
    pub kubernetes: Kubernetes,
    /// Addresses and networks of the tenant cluster.
    #[serde(default)]
    pub network_profile: NetworkProfile,
    /// Software that the operator installs inside the tenant cluster.
    #[serde(default)]
    pub addons: Addons,
    /// What becomes of the tenant's data when this object is deleted.
    #[serde(default)]
    pub deletion: Deletion,
    /// What nobody may do inside the tenant cluster, its administrators included, until it is allowed again.
    #[serde(default, skip_serializing_if = "WritePermissions::is_unlimited")]
    pub write_permissions: WritePermissions,
    /// When the control plane sleeps. Left out, it never does, unless `replicas` is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernation: Option<Hibernation>,
}

/// Writes that are refused inside the tenant cluster. Reading, signing in, logs, exec, heartbeats of nodes and leader
/// election go on, and so does what the operator keeps there. Takes effect within seconds and restarts nothing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct WritePermissions {
    /// No object can be made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_creation: bool,
    /// No object can be changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_update: bool,
    /// No object can be deleted, and no pod evicted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_deletion: bool,
}

impl WritePermissions {
    /// Whether anything is refused.
    #[must_use]
    pub fn is_limited(self) -> bool {
        self.block_creation || self.block_update || self.block_deletion
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_unlimited(&self) -> bool {
        !self.is_limited()
    }
}

/// What becomes of the tenant's data when the object is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// Seconds that the tenant's keys stay in the `DataStore` after this object is gone; 0 removes
    /// them at once. Default: 604800 (a week).
    #[serde(default = "default_retention")]
    #[schemars(range(min = 0))]
    pub data_retention_seconds: i64,
}

/// CEL: a change of `spec.dataStore` may only write down what is so already.
const DATA_STORE_IS_THE_ONE_IN_USE: &str = "\
    (has(self.spec.dataStore) ? self.spec.dataStore : '') \
    == (has(oldSelf.spec.dataStore) ? oldSelf.spec.dataStore : '') \
    || !has(oldSelf.status) || !has(oldSelf.status.storage) \
    || (has(self.spec.dataStore) && self.spec.dataStore == oldSelf.status.storage.dataStoreName)";

/// CEL: a `spec.dataStoreSchema` that is set later may only write down what is so already.
const SCHEMA_IS_THE_ONE_IN_USE: &str = "\
    !has(self.spec.dataStoreSchema) || has(oldSelf.spec.dataStoreSchema) \
    || !has(oldSelf.status) || !has(oldSelf.status.storage) \
    || self.spec.dataStoreSchema == oldSelf.status.storage.setup.schema";

/// The Service has every port once.
const TUNNEL_PORT_IS_FREE: &str = "!has(self.addons.konnectivity) || \
    (self.addons.konnectivity.server.port != (has(self.networkProfile.port) ? self.networkProfile.port : 6443) && \
     (!has(self.controlPlane.service.additionalPorts) || \
      self.controlPlane.service.additionalPorts.all(p, \
      p.protocol != 'TCP' || p.port != self.addons.konnectivity.server.port)))";

/// CEL: the class stays what it is from one `LoadBalancer` to the next.
const SAME_CLASS: &str = "\
    self.controlPlane.service.serviceType != 'LoadBalancer' || \
    oldSelf.controlPlane.service.serviceType != 'LoadBalancer' || \
    (has(self.networkProfile.loadBalancerClass) ? self.networkProfile.loadBalancerClass : '') == \
    (has(oldSelf.networkProfile.loadBalancerClass) ? oldSelf.networkProfile.loadBalancerClass : '')";

/// CEL: issuers are given in one place.
const ISSUERS_ONCE: &str = "\
    !has(self.kubernetes.serviceAccountIssuers) || !has(self.controlPlane.deployment.extraArgs) || \
    !has(self.controlPlane.deployment.extraArgs.apiServer) || \
    self.controlPlane.deployment.extraArgs.apiServer.all(a, \
    !a.matches('^--service[-_]account[-_]issuer='))";

/// CEL: while one minor is being rolled out, the next cannot be asked for.
fn no_second_upgrade() -> String {
    let new = "self.spec.kubernetes.version";
    let installed = "oldSelf.status.kubernetesResources.version.version";
    format!(
        "{new} == oldSelf.spec.kubernetes.version || !has(oldSelf.status) || !has({installed}) \
         || !{new}.matches('{RELEASE}') || !{installed}.matches('{RELEASE}') \
         || int({new}.split('.')[1]) - int({installed}.split('.')[1]) <= 1"
    )
}

fn default_retention() -> i64 {
    7 * 24 * 3600
}

impl Default for Deletion {
    fn default() -> Self {
        Self {
            data_retention_seconds: default_retention(),
        }
    }
}
