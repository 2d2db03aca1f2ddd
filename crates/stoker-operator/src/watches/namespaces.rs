//! Namespaces that are being deleted: their tenants go first.
//!
//! The namespace controller ends pods before anything else, looks again only after half of the time that they may take,
//! and then finds our finalizers. A tenant that is told to go at once is gone, in its own order, before it looks at all.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use stoker_api::v1alpha1::TenantControlPlane;

use super::{broken, events};
use crate::context::Context;

/// Tells tenants of namespaces that are being deleted to go, for ever. To be called once the cache of tenants is filled.
pub async fn watch_leaving_namespaces(ctx: Arc<Context>) {
    let leaving = watcher::Config::default().fields("status.phase=Terminating");
    let stream = events::<Namespace>(ctx.client.clone(), leaving);
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if let Some(Event::Apply(namespace) | Event::InitApply(namespace)) =
            broken("Namespace", event)
        {
            delete_tenants(&namespace.name_any(), &ctx).await;
        }
    }
}

async fn delete_tenants(namespace: &str, ctx: &Context) {
    let tenants: Api<TenantControlPlane> = Api::namespaced(ctx.client.clone(), namespace);
    for tenant in ctx.stores.tenants.state() {
        let leaving = tenant.meta().deletion_timestamp.is_some();
        if leaving || tenant.namespace().as_deref() != Some(namespace) {
            continue;
        }
        let name = tenant.name_any();
        let only_this = Preconditions {
            uid: tenant.uid(),
            resource_version: None,
        };
        let params = DeleteParams::default().preconditions(only_this);
        match tenants.delete(&name, &params).await {
            Ok(_) => tracing::info!(namespace, tenant = name, "deleted with its namespace"),
            // The namespace controller does it later.
            Err(error) => {
                tracing::warn!(namespace, tenant = name, error = %error, "not deleted with its namespace");
            }
        }
    }
}
