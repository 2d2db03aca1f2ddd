//! The objects that are watched, without what no route needs: of a tenant its storage id, of an `EndpointSlice` the
//! addresses that serve.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde_json::Value;
use stoker_api::StorageId;
use stoker_api::labels::TENANT;
use stoker_api::tenant::{API_SERVER_PORT_NAME, TUNNEL_PORT_NAME};
use stoker_api::v1alpha1::{TenantControlPlane, VersionState};
use stoker_kube::SparseMeta;

use crate::routes::Rest;

/// A `TenantControlPlane`.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "SentTenant")]
pub(super) struct Tenant {
    metadata: ObjectMeta,
    /// Absent until it has one.
    pub(super) id: Option<StorageId>,
    /// Whether it sleeps.
    pub(super) rest: Rest,
}

/// An `EndpointSlice` of a tenant's Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "SentSlice")]
pub(super) struct Slice {
    metadata: ObjectMeta,
    /// Pods that are ready.
    pub(super) ready: Vec<IpAddr>,
    /// Pods that end and still serve.
    pub(super) ending: Vec<IpAddr>,
    /// Pods that do not serve yet, as far as their kubelets have seen.
    pub(super) starting: Vec<IpAddr>,
    /// Where all of them serve.
    pub(super) ports: Ports,
}

/// Where the pods of a slice serve.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ports {
    pub(super) api: Option<u16>,
    pub(super) tunnel: Option<u16>,
}

/// `discoveryv1.LabelServiceName`.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `namespace/name` of a tenant.
pub(super) type Key = Box<str>;

impl Tenant {
    pub(super) fn key(&self) -> Key {
        key(
            &self.metadata,
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl Slice {
    /// The tenant whose it is. Slices have the labels of their Service, whosever it is: it must be the tenant's own, which
    /// has its name.
    pub(super) fn tenant(&self) -> Option<Key> {
        let labels = self.metadata.labels.as_ref()?;
        let tenant = labels.get(TENANT)?;
        (labels.get(SERVICE_NAME) == Some(tenant)).then(|| key(&self.metadata, tenant))
    }

    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

fn key(metadata: &ObjectMeta, name: &str) -> Key {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{name}").into()
}

#[derive(Deserialize)]
struct SentTenant {
    metadata: SparseMeta,
    #[serde(default)]
    status: Option<SentStatus>,
}

#[derive(Deserialize)]
struct SentStatus {
    #[serde(default)]
    storage: Option<SentStorage>,
    #[serde(default)]
    hibernation: Option<SentHibernation>,
    #[serde(default, rename = "kubernetesResources")]
    resources: SentResources,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentHibernation {
    #[serde(default)]
    wakes_on_connection: bool,
}

#[derive(Default, Deserialize)]
struct SentResources {
    #[serde(default)]
    version: SentVersion,
}

#[derive(Default, Deserialize)]
struct SentVersion {
    /// A word: one that an operator newer than this says must not keep all of its tenants from being read.
    #[serde(default)]
    status: Value,
}

impl SentStatus {
    fn rest(&self) -> Rest {
        let hibernation = self.hibernation.as_ref();
        let state = VersionState::deserialize(&self.resources.version.status);
        match state {
            Ok(VersionState::Waking) => Rest::Waking,
            _ if hibernation.is_some_and(|found| found.wakes_on_connection) => Rest::Asleep,
            _ => Rest::None,
        }
    }
}

#[derive(Deserialize)]
struct SentStorage {
    #[serde(default)]
    setup: Option<SentSetup>,
}

#[derive(Deserialize)]
struct SentSetup {
    #[serde(default)]
    schema: String,
}

impl From<SentTenant> for Tenant {
    fn from(sent: SentTenant) -> Self {
        let rest = sent.status.as_ref().map(SentStatus::rest);
        let setup = sent.status.and_then(|status| status.storage?.setup);
        Self {
            rest: rest.unwrap_or_default(),
            metadata: sent.metadata.into(),
            id: setup.and_then(|setup| setup.schema.parse().ok()),
        }
    }
}

#[derive(Deserialize)]
struct SentSlice {
    metadata: SparseMeta,
    #[serde(default)]
    endpoints: Option<Vec<SentEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<SentPort>>,
}

#[derive(Deserialize)]
struct SentEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: SentConditions,
}

/// What is unknown counts as said in `discovery/v1`: ready, serving if ready, and not ending.
#[derive(Default, Deserialize)]
struct SentConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct SentPort {
    name: Option<String>,
    port: Option<u16>,
}

impl From<SentSlice> for Slice {
    fn from(sent: SentSlice) -> Self {
        let port = |name: &str| {
            let mut ports = sent.ports.iter().flatten();
            ports.find(|port| port.name.as_deref() == Some(name))?.port
        };
        let ports = Ports {
            api: port(API_SERVER_PORT_NAME),
            tunnel: port(TUNNEL_PORT_NAME),
        };
        let mut slice = Self {
            metadata: sent.metadata.into(),
            ready: Vec::new(),
            ending: Vec::new(),
            starting: Vec::new(),
            ports,
        };
        for endpoint in sent.endpoints.iter().flatten() {
            let ready = endpoint.conditions.ready.unwrap_or(true);
            let serving = endpoint.conditions.serving.unwrap_or(ready);
            let terminating = endpoint.conditions.terminating.unwrap_or(false);
            let list = match (ready, serving, terminating) {
                (true, ..) => &mut slice.ready,
                (false, true, _) => &mut slice.ending,
                (false, false, false) => &mut slice.starting,
                (false, false, true) => continue,
            };
            // All of them are the same pod.
            let address = endpoint.addresses.first();
            let address = address.and_then(|address| address.parse::<IpAddr>().ok());
            list.extend(address.filter(is_of_a_pod));
        }
        slice
    }
}

/// What nobody's pod has, the gateway does not dial, whoever may write slices.
fn is_of_a_pod(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

/// Both are what they are called in the API.
macro_rules! resource {
    ($sparse:ty, $whole:ty) => {
        impl Resource for $sparse {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                <$whole as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$whole as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$whole as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$whole as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Tenant, TenantControlPlane);
resource!(Slice, EndpointSlice);
