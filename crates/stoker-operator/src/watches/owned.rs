//! What we made on the management cluster: changes by others ask for a pass.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_kube::{Change, ObjectKey, Observation, OwnedWatch};

use super::standing::Standing;
use super::{broken, cached, events, ours};
use crate::context::Context;

/// Services and Deployments: cached for what their status says. What we have made, the pass that made it knows.
pub(super) async fn watch_cached<K>(cache: Writer<K>, ctx: Arc<Context>)
where
    K: Standing + Send + Sync + 'static,
{
    let kind = K::kind(&());
    let stream = events(ctx.client.clone(), ours());
    let mut stream = std::pin::pin!(cached(cache, stream));
    let mut known: HashMap<_, (K::Word, K::Count)> = HashMap::new();
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let (object, deleted, lists) = match broken(&kind, event) {
            Some(Event::Apply(object)) => (object, false, false),
            Some(Event::InitApply(object)) => (object, false, true),
            Some(Event::Delete(object)) => (object, true, false),
            Some(Event::InitDone) => {
                // The cache has what was listed only now.
                listed.drain(..).for_each(|tenant| ctx.wake_soon(tenant));
                continue;
            }
            Some(Event::Init) | None => continue,
        };
        let key = ObjectKey::of::<K>(object.meta().namespace.as_deref(), &object.name_any());
        let now = object.standing();
        let before = known.remove(&key);
        let before = before.unwrap_or_else(|| (object.made(), K::Count::default()));
        let (is_news, counts) = (before.0 != now.0, before.1 != now.1);
        if !deleted {
            known.insert(key.clone(), now);
        }
        let metadata = object.meta().clone();
        let change = Change {
            key,
            metadata,
            deleted,
        };
        let observation = saw(&ctx, &change);
        let Some(tenant) = tenant_of(object.meta()) else {
            continue;
        };
        if is_news || observation != Some(Observation::Echo) {
            if lists {
                listed.push(tenant);
            } else {
                ctx.wake_soon(tenant);
            }
        } else if counts {
            ctx.wake_later(tenant);
        }
    }
}

/// The other kinds: only their metadata, and only to notice changes by others.
pub(super) async fn watch_metadata(ctx: Arc<Context>) {
    let kinds = vec![
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
    ];
    let watch = OwnedWatch {
        resources: kinds,
        selector: format!("{MANAGED_BY}={MANAGED_BY_VALUE}"),
        fields: None,
        namespace: None,
        owner_label: Some(TENANT),
        written: Vec::new(),
        bookmarks: true,
        remembered: usize::MAX,
    };
    let mut changes = std::pin::pin!(stoker_kube::watch_owned(ctx.client.clone(), watch));
    while let Some(change) = changes.next().await {
        let Some(change) = broken("metadata", change) else {
            continue;
        };
        ctx.join_tokens.saw_secret(&change);
        let Some(tenant) = tenant_of(&change.metadata) else {
            continue;
        };
        if change.key.kind() == Secret::KIND {
            ctx.kubeconfigs.saw_secret(&tenant, &change);
        }
        if saw(&ctx, &change) == Some(Observation::Changed) {
            ctx.wake(tenant);
        }
    }
}

/// The tenant that an object belongs to: by its label, or, when somebody took the label away, by its owner.
pub(crate) fn tenant_of(object: &ObjectMeta) -> Option<ObjectRef<TenantControlPlane>> {
    let label = object.labels.as_ref().and_then(|labels| labels.get(TENANT));
    let owner = || {
        let owners = object.owner_references.iter().flatten();
        let mut tenants = owners.filter(|owner| owner.kind == TenantControlPlane::kind(&()));
        Some(&tenants.next()?.name)
    };
    let name = label.or_else(owner)?;
    Some(ObjectRef::new(name).within(object.namespace.as_deref()?))
}

/// Tells the tenant's ledger; `None` of a tenant that is not known.
pub(super) fn saw(ctx: &Context, change: &Change) -> Option<Observation> {
    let tenant = tenant_of(&change.metadata)?;
    let state = ctx.tenants.get(&tenant)?;
    let observation = state.ledger.observe(change);
    tracing::debug!(object = %change.key, deleted = change.deleted, ?observation, version = change.metadata.resource_version, "seen");
    if observation == Observation::Changed {
        state.unsettle();
    }
    Some(observation)
}
