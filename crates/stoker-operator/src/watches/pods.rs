//! Control-plane pods: where a tenant's API servers answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use stoker_api::v1alpha1::TenantControlPlane;

use super::owned::tenant_of;
use super::{Listed, broken, events, ours};
use crate::context::Context;
use crate::tenant::pods::PodFacts;
use crate::tenant::state::{TenantState, lock};

pub(super) async fn watch_pods(ctx: Arc<Context>, listed: Listed) {
    let mut stream = std::pin::pin!(events::<Pod>(ctx.client.clone(), ours()));
    let mut listing = HashMap::new();
    while let Some(event) = stream.next().await {
        match broken("Pod", event) {
            Some(Event::Apply(pod)) => saw(&ctx, &pod),
            Some(Event::InitApply(pod)) => {
                saw(&ctx, &pod);
                if let Some(tenant) = tenant_of(&pod.metadata) {
                    let names: &mut BTreeSet<String> = listing.entry(tenant).or_default();
                    names.insert(pod.name_any());
                }
            }
            Some(Event::Delete(pod)) => {
                if let Some(tenant) = tenant_of(&pod.metadata) {
                    let state = ctx.tenants.state(&tenant);
                    let news = lock(&state.pods).gone(&pod.name_any());
                    fewer(&ctx, tenant, &state, news);
                }
            }
            Some(Event::Init) => listing.clear(),
            Some(Event::InitDone) => {
                keep_only(&ctx, std::mem::take(&mut listing));
                listed.store(true, Ordering::Release);
            }
            None => {}
        }
    }
}

fn saw(ctx: &Context, pod: &Pod) {
    let Some(tenant) = tenant_of(&pod.metadata) else {
        return;
    };
    let state = ctx.tenants.state(&tenant);
    if lock(&state.pods).saw(pod) {
        ctx.wake_soon(tenant);
        meet(ctx, &PodFacts::of(pod));
    }
}

/// Has the networks looked at again when a pod is in none of them, or when one that was may be gone.
fn meet(ctx: &Context, pod: &PodFacts) {
    let networks = ctx.management_networks.borrow();
    if networks.unnamed.is_some() || pod.addresses().any(|ip| !networks.covers(ip)) {
        ctx.networks_doubted.notify_one();
    }
}

/// The list is complete: the pods that it did not name are gone.
fn keep_only(ctx: &Context, mut listing: HashMap<ObjectRef<TenantControlPlane>, BTreeSet<String>>) {
    for (tenant, state) in ctx.tenants.all() {
        let names = listing.remove(&tenant).unwrap_or_default();
        if lock(&state.pods).keep_only(&names) {
            fewer(ctx, tenant, &state, true);
        }
    }
}

/// The last pods of a tenant may end after it: then nothing of it is left to know.
fn fewer(ctx: &Context, tenant: ObjectRef<TenantControlPlane>, state: &TenantState, news: bool) {
    if ctx.management_networks.borrow().unnamed.is_some() {
        ctx.networks_doubted.notify_one();
    }
    let exists = ctx.stores.tenants.get(&tenant).is_some();
    if !exists && lock(&state.pods).is_empty() {
        ctx.tenants.remove(&tenant);
    } else if news {
        ctx.wake(tenant);
    }
}
