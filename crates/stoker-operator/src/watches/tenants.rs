//! Tenants: what people write asks for a pass, what we write does not. Whose place in a pool is new or gone, its
//! `DataStore` counts again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use stoker_api::v1alpha1::TenantControlPlane;

use super::{broken, cached, events};
use crate::context::Context;
use crate::data_store::reconcile::data_store_of;
use crate::tenant::{self, identity::has_finalizer};

/// What is kept of a tenant to tell what the next event of it means.
#[derive(Clone, PartialEq)]
struct Seen {
    uid: Option<String>,
    generation: Option<i64>,
    leaving: bool,
    annotations: BTreeMap<String, String>,
    /// Whether our finalizer holds it.
    held: bool,
    data_store: Option<String>,
}

impl Seen {
    fn of(tenant: &TenantControlPlane) -> Self {
        Self {
            uid: tenant.uid(),
            generation: tenant.metadata.generation,
            leaving: tenant.metadata.deletion_timestamp.is_some(),
            annotations: tenant.annotations().clone(),
            held: has_finalizer(tenant),
            data_store: data_store_of(tenant).map(str::to_owned),
        }
    }

    /// Whether a pass is due: for everything that people write, nothing that we write.
    fn asks(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| {
            let ours = Self {
                held: before.held && self.held,
                data_store: before.data_store.clone(),
                ..self.clone()
            };
            ours != *before
        })
    }
}

pub(super) async fn watch_tenants(cache: Writer<TenantControlPlane>, ctx: Arc<Context>) {
    let mut known: HashMap<_, Seen> = HashMap::new();
    let stream = events(ctx.client.clone(), watcher::Config::default());
    let mut stream = std::pin::pin!(cached(cache, stream));
    while let Some(event) = stream.next().await {
        match broken("TenantControlPlane", event) {
            Some(Event::Apply(tenant) | Event::InitApply(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                // By its labels generators select it, and its status tells when there is something to make from.
                ctx.kubeconfigs.saw_tenant(&reference);
                ctx.join_tokens.saw_tenant(&reference);
                let now = Seen::of(&tenant);
                let before = known.insert(reference.clone(), now.clone());
                if now.asks(before.as_ref()) {
                    ctx.wake(reference);
                }
                moved(
                    &ctx,
                    before.and_then(|before| before.data_store),
                    now.data_store,
                );
            }
            Some(Event::Delete(tenant)) => {
                let reference = ObjectRef::from_obj(&tenant);
                let before = known.remove(&reference);
                moved(&ctx, before.and_then(|before| before.data_store), None);
                ctx.tenants.remove(&reference);
                tenant::rollout::leave(&reference, &ctx);
                ctx.kubeconfigs.forget(&reference);
                ctx.join_tokens.saw_tenant(&reference);
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

/// Has the `DataStore`s counted again that a tenant left and came to.
fn moved(ctx: &Context, from: Option<String>, to: Option<String>) {
    if from != to {
        if let Some(from) = from {
            ctx.wake_data_store_soon(&from);
        }
        if let Some(to) = to {
            ctx.recount_data_store(&to);
        }
    }
}
