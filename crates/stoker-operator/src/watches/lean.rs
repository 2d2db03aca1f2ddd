//! Objects of the management cluster without what nobody here reads: a pod in the making is sent six times, with 10 kB of
//! containers, volumes and managed fields each time.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodStatus, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use stoker_api::v1alpha1::{
    DataStore, DataStoreSpec, DataStoreStatus, JoinToken, JoinTokenSpec, JoinTokenStatus,
    KubeconfigGenerator, KubeconfigGeneratorSpec, KubeconfigGeneratorStatus, TenantControlPlane,
    TenantControlPlaneSpec, TenantControlPlaneStatus,
};
use stoker_kube::SparseMeta;

/// An object as it is sent, with as much of it as is read.
#[derive(Deserialize)]
pub(crate) struct Sent<Spec, Status> {
    metadata: SparseMeta,
    spec: Spec,
    status: Status,
}

/// A kind of which only a part is read.
pub(crate) trait Kind: Resource<DynamicType = ()> + Clone + std::fmt::Debug {
    /// That part.
    type Sent: DeserializeOwned;

    fn read(sent: Self::Sent) -> Self;
}

/// An object of which only a part was read.
#[derive(Clone, Debug)]
pub(super) struct Lean<K>(K);

impl<K> Lean<K> {
    pub(super) fn event(event: Event<Self>) -> Event<K> {
        match event {
            Event::Apply(Self(object)) => Event::Apply(object),
            Event::Delete(Self(object)) => Event::Delete(object),
            Event::Init => Event::Init,
            Event::InitApply(Self(object)) => Event::InitApply(object),
            Event::InitDone => Event::InitDone,
        }
    }
}

impl<'de, K: Kind> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Sent::deserialize(deserializer).map(|sent| Self(K::read(sent)))
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Lean<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// An object as an API server wrote it.
///
/// # Errors
/// It is none of this kind.
pub(crate) fn read<K: Kind>(object: &RawValue) -> serde_json::Result<K> {
    let Lean(object) = serde_json::from_str(object.get())?;
    Ok(object)
}

/// Objects that are held at a time while all of a kind are looked at.
const PAGE: u32 = 500;

/// All objects of the cluster that `wanted` wants, as the API server knows them now.
///
/// # Errors
/// The API server's.
pub(crate) async fn list<K>(
    client: &Client,
    wanted: impl Fn(&K) -> bool,
) -> Result<Vec<K>, kube::Error>
where
    K: Kind,
{
    let objects = Api::<Lean<K>>::all(client.clone());
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = objects.list(&params).await?;
        let all = page.items.into_iter().map(|Lean(object)| object);
        found.extend(all.filter(&wanted));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

type Unread = Option<IgnoredAny>;

/// Of the spec of a Deployment: how many pods are wanted.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    replicas: Option<i32>,
}

impl From<Wanted> for DeploymentSpec {
    fn from(Wanted { replicas }: Wanted) -> Self {
        Self {
            replicas,
            ..Self::default()
        }
    }
}

/// Kinds, their spec and status as they are read, and what of them is kept.
macro_rules! kinds {
    ($($kind:ident: $spec:ty, $status:ty, |$sent:ident| ($kept_spec:expr, $kept_status:expr);)+) => { $(
        impl Kind for $kind {
            type Sent = Sent<$spec, $status>;

            fn read($sent: Self::Sent) -> Self {
                Self {
                    metadata: $sent.metadata.into(),
                    spec: $kept_spec,
                    status: $kept_status,
                }
            }
        }
    )+ };
}

kinds! {
    Pod: Unread, Option<PodStatus>, |sent| (None, sent.status);
    Deployment: Option<Wanted>, Option<DeploymentStatus>, |sent| (sent.spec.map(Into::into), sent.status);
    Service: Option<ServiceSpec>, Option<ServiceStatus>, |sent| (sent.spec, sent.status);
    Namespace: Unread, Unread, |sent| (None, None);
    TenantControlPlane: TenantControlPlaneSpec, Option<TenantControlPlaneStatus>, |sent| (sent.spec, sent.status);
    DataStore: DataStoreSpec, Option<DataStoreStatus>, |sent| (sent.spec, sent.status);
    JoinToken: JoinTokenSpec, Option<JoinTokenStatus>, |sent| (sent.spec, sent.status);
    KubeconfigGenerator: KubeconfigGeneratorSpec, Option<KubeconfigGeneratorStatus>, |sent| (sent.spec, sent.status);
}
