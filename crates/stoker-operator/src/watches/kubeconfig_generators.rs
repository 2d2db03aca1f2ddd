//! `KubeconfigGenerator`s, and, once one selects by them, the labels of namespaces.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use stoker_api::labels::PAUSED;
use stoker_api::v1alpha1::KubeconfigGenerator;

use super::{broken, cached, events};
use crate::context::Context;
use crate::kubeconfig_generator::state::NamespaceLabels;
use crate::tenant::state::lock;

/// Whatever people write asks for a pass over the generator and over every tenant.
pub(super) async fn watch_generators(cache: Writer<KubeconfigGenerator>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(ctx.client.clone(), watcher::Config::default());
    let mut stream = std::pin::pin!(cached(cache, stream));
    while let Some(event) = stream.next().await {
        match broken("KubeconfigGenerator", event) {
            Some(Event::Apply(generator) | Event::InitApply(generator)) => {
                let name = generator.name_any();
                let now = (
                    generator.uid(),
                    generator.metadata.generation,
                    generator.metadata.deletion_timestamp.is_some(),
                    generator.annotations().contains_key(PAUSED),
                );
                if known.insert(name.clone(), now.clone()) != Some(now) {
                    ctx.kubeconfigs.wake_generator(&name);
                    wake_tenants(&ctx, None);
                }
            }
            Some(Event::Delete(generator)) => {
                known.remove(&generator.name_any());
                let reference = ObjectRef::from_obj(&generator);
                ctx.kubeconfigs.generator_failures.succeeded(&reference);
                wake_tenants(&ctx, None);
            }
            Some(Event::InitDone) => {
                for generator in ctx.kubeconfigs.generators.state() {
                    ctx.kubeconfigs.wake_generator(&generator.name_any());
                }
                wake_tenants(&ctx, None);
            }
            Some(Event::Init) | None => {}
        }
    }
}

/// Asks for a pass over the kubeconfigs of all tenants, or of those of a namespace.
fn wake_tenants(ctx: &Context, namespace: Option<&str>) {
    for tenant in ctx.stores.tenants.state() {
        if namespace.is_none_or(|namespace| tenant.namespace().as_deref() == Some(namespace)) {
            ctx.kubeconfigs
                .saw_tenant(&ObjectRef::from_obj(tenant.as_ref()));
        }
    }
}

/// Labels of namespaces, from when they are first needed.
pub(super) async fn watch_namespaces(ctx: Arc<Context>) {
    ctx.kubeconfigs.namespaces_needed.notified().await;
    let namespaces = events::<Namespace>(ctx.client.clone(), watcher::Config::default());
    let mut stream = std::pin::pin!(namespaces);
    let mut listing = NamespaceLabels::new();
    while let Some(event) = stream.next().await {
        match broken("Namespace", event) {
            Some(Event::Init) => listing.clear(),
            Some(Event::InitApply(namespace)) => {
                listing.insert(namespace.name_any(), namespace.labels().clone());
            }
            Some(Event::InitDone) => {
                *lock(&ctx.kubeconfigs.namespaces) = Some(std::mem::take(&mut listing));
                wake_tenants(&ctx, None);
                for generator in ctx.kubeconfigs.generators.state() {
                    ctx.kubeconfigs.wake_generator(&generator.name_any());
                }
            }
            Some(Event::Apply(namespace)) => {
                let (name, labels) = (namespace.name_any(), namespace.labels().clone());
                let mut known = lock(&ctx.kubeconfigs.namespaces);
                let known = known.get_or_insert_default();
                if known.insert(name.clone(), labels.clone()) != Some(labels) {
                    wake_tenants(&ctx, Some(&name));
                }
            }
            Some(Event::Delete(namespace)) => {
                let mut known = lock(&ctx.kubeconfigs.namespaces);
                known.get_or_insert_default().remove(&namespace.name_any());
            }
            None => {}
        }
    }
}
