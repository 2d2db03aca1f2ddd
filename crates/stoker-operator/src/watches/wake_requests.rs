//! Tenants that somebody wants while they sleep, as the gateway tells it (`stoker_api::wake`).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_api::wake;

use super::broken;
use crate::FIELD_MANAGER;
use crate::context::Context;

/// Between two tries to make the object.
const PAUSE: Duration = Duration::from_secs(5);

/// Wakes those that are wanted, for ever. To be called once the cache of tenants is filled.
pub async fn watch_wake_requests(ctx: Arc<Context>) {
    make(&ctx).await;
    let only = watcher::Config::default().fields(&format!("metadata.name={}", wake::REQUESTS));
    let mut stream = std::pin::pin!(watcher(requests(&ctx), only).default_backoff());
    while let Some(event) = stream.next().await {
        match broken("ConfigMap", event) {
            Some(Event::Apply(requests) | Event::InitApply(requests)) => {
                for entry in requests.data.unwrap_or_default().into_keys() {
                    wanted(&entry, &ctx).await;
                }
            }
            Some(Event::Delete(_)) => make(&ctx).await,
            Some(Event::Init | Event::InitDone) | None => {}
        }
    }
}

async fn wanted(entry: &str, ctx: &Context) {
    let named = wake::tenant(entry)
        .map(|(namespace, name)| ObjectRef::<TenantControlPlane>::new(name).within(namespace));
    match named.filter(|tenant| ctx.stores.tenants.get(tenant).is_some()) {
        Some(tenant) => {
            ctx.tenants.state(&tenant).set_wanted(true);
            ctx.wake(tenant);
        }
        // Else it would be there for ever.
        None => {
            if let Err(error) = answered(entry, ctx).await {
                tracing::warn!(entry, %error, "an entry of no tenant stays among the wake requests");
            }
        }
    }
}

/// Takes out an entry: the tenant is awake, or nobody may wake it.
///
/// # Errors
/// The API server refused.
pub(crate) async fn answered(entry: &str, ctx: &Context) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({ "data": { entry: null } }));
    let params = PatchParams::default();
    let answer = requests(ctx).patch(wake::REQUESTS, &params, &patch).await;
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        answer => answer.map(drop),
    }
}

/// The gateway may only change it.
async fn make(ctx: &Context) {
    let empty = ConfigMap {
        metadata: ObjectMeta {
            name: Some(wake::REQUESTS.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    loop {
        match requests(ctx).create(&params, &empty).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.is_already_exists() => return,
            Err(error) => {
                tracing::warn!(%error, "nowhere to tell that tenants are wanted, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn requests(ctx: &Context) -> Api<ConfigMap> {
    Api::namespaced(ctx.client.clone(), &ctx.args.pod_namespace)
}
