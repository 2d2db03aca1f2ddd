//! `Ingress`es and `TLSRoute`s: watched from when the first tenant uses one, for changes by others and for what their
//! controllers say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, ResourceExt};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_kube::{Change, ObjectKey, Observation};

use super::owned::{saw, tenant_of};
use super::{broken, ours};
use crate::context::Context;
use crate::routes::{Served, look_for_tls_routes};
use crate::tenant::routes::Said;
use crate::tenant::state::lock;

/// Between two looks whether the Gateway API was installed, or whether a version of it is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) async fn watch_ingresses(ctx: Arc<Context>) {
    ctx.routes.ingresses_used.notified().await;
    let kind = ApiResource::erase::<Ingress>(&());
    loop {
        follow(&kind, &ctx, Said::of_ingress).await;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(super) async fn watch_tls_routes(ctx: Arc<Context>) {
    ctx.routes.tls_routes_used.notified().await;
    loop {
        match look_for_tls_routes(&ctx.client).await {
            Ok(served) => {
                if ctx.routes.found_tls_routes(served.clone()) {
                    tracing::info!(?served, "TLSRoutes of the Gateway API");
                    wake_users(&ctx);
                }
                if let Served::As(kind) = served {
                    follow(&kind, &ctx, Said::of_tls_route).await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look for the Gateway API"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Tenants that have a `TLSRoute` or want one.
fn wake_users(ctx: &Context) {
    for tenant in ctx.stores.tenants.state() {
        let status = tenant.status.as_ref();
        let has = status.is_some_and(|status| status.kubernetes_resources.gateway.is_some());
        if has || tenant.spec.control_plane.gateway.is_some() {
            ctx.wake(ObjectRef::from_obj(tenant.as_ref()));
        }
    }
}

/// Watches until the kind is no longer served.
async fn follow(kind: &ApiResource, ctx: &Context, said: fn(&DynamicObject) -> Said) {
    let objects: Api<DynamicObject> = Api::all_with(ctx.client.clone(), kind);
    let events = watch_objects(objects, ours())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear());
    let mut events = std::pin::pin!(events);
    let mut known = HashMap::new();
    let mut before = HashMap::new();
    while let Some(event) = events.next().await {
        if is_not_served(&event) {
            break;
        }
        match broken(&kind.kind, event) {
            Some(Event::Init) => before = std::mem::take(&mut known),
            Some(Event::InitApply(object) | Event::Apply(object)) => {
                let name = (object.namespace(), object.name_any());
                before.remove(&name);
                known.insert(name, object.metadata.clone());
                tell(
                    kind,
                    ctx,
                    object.metadata.clone(),
                    Some(said(&object)),
                    said,
                );
            }
            Some(Event::Delete(object)) => {
                known.remove(&(object.namespace(), object.name_any()));
                tell(kind, ctx, object.metadata, None, said);
            }
            Some(Event::InitDone) => {
                for (_, metadata) in before.drain() {
                    tell(kind, ctx, metadata, None, said);
                }
            }
            None => {}
        }
    }
    for (_, metadata) in known.into_iter().chain(before) {
        tell(kind, ctx, metadata, None, said);
    }
}

/// Tells the tenant of its object and of what is `said` of it; `None` when it is gone.
fn tell(
    kind: &ApiResource,
    ctx: &Context,
    metadata: ObjectMeta,
    now: Option<Said>,
    said: fn(&DynamicObject) -> Said,
) {
    let Some(tenant) = tenant_of(&metadata) else {
        return;
    };
    let name = metadata.name.as_deref().unwrap_or_default();
    let key = ObjectKey::new(kind, metadata.namespace.as_deref(), name);
    let nothing = || said(&DynamicObject::new(name, kind));
    let deleted = now.is_none();
    let news = is_news(ctx, &tenant, now.unwrap_or_else(nothing));
    let change = Change {
        key,
        metadata,
        deleted,
    };
    if saw(ctx, &change) == Some(Observation::Changed) || news {
        ctx.wake(tenant);
    }
}

fn is_news(ctx: &Context, tenant: &ObjectRef<TenantControlPlane>, said: Said) -> bool {
    if ctx.stores.tenants.get(tenant).is_none() {
        return false;
    }
    let state = ctx.tenants.state(tenant);
    let mut routes = lock(&state.routes);
    routes.hear(said)
}

fn is_not_served(event: &watcher::Result<Event<DynamicObject>>) -> bool {
    match event {
        Err(
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
        ) => status.code == 404,
        _ => false,
    }
}
