//! Tenants: what people write asks for a pass, what we write does not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use stoker_api::v1alpha1::TenantControlPlane;

use super::{broken, cached, events};
use crate::context::Context;

/// What of a tenant asks for a pass: everything that people write, nothing that we write.
fn fingerprint(
    tenant: &TenantControlPlane,
) -> (Option<String>, Option<i64>, bool, BTreeMap<String, String>) {
    (
        tenant.uid(),
        tenant.metadata.generation,
        tenant.metadata.deletion_timestamp.is_some(),
        tenant.annotations().clone(),
    )
}

pub(super) async fn watch_tenants(cache: Writer<TenantControlPlane>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(
        Api::<TenantControlPlane>::all(ctx.client.clone()),
        watcher::Config::default(),
    );
    let mut stream = std::pin::pin!(cached(cache, stream));
    while let Some(event) = stream.next().await {
        match broken("TenantControlPlane", event) {
            Some(Event::Apply(tenant) | Event::InitApply(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                // By its labels generators select it, and its status tells when there is something to make from.
                ctx.kubeconfigs.saw_tenant(&reference);
                let now = fingerprint(&tenant);
                if known.insert(reference.clone(), now.clone()) != Some(now) {
                    ctx.wake(reference);
                }
            }
            Some(Event::Delete(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                known.remove(&reference);
                ctx.tenants.remove(&reference);
                ctx.kubeconfigs.forget(&reference);
                ctx.tenant_failures.succeeded(&reference);
            }
            Some(Event::InitDone) => {
                let exists = |tenant: &ObjectRef<_>| ctx.stores.tenants.get(tenant).is_some();
                ctx.tenants.retain(exists);
                ctx.wake_all_tenants();
            }
            Some(Event::Init) | None => {}
        }
    }
}
