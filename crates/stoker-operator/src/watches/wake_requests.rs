//! Tenants that somebody wants while they sleep, as the gateway tells it (`stoker_api::wake`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Map, Value, json};
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_api::wake;

use super::broken;
use crate::FIELD_MANAGER;
use crate::context::Context;

/// Between two tries to make the object.
const PAUSE: Duration = Duration::from_secs(5);

type Entries = BTreeMap<String, String>;
type Tenant = ObjectRef<TenantControlPlane>;

/// Wakes those that are wanted, for ever. To be called once the cache of tenants is filled.
pub async fn watch_wake_requests(ctx: Arc<Context>) {
    make(&ctx).await;
    let only = watcher::Config::default().fields(&format!("metadata.name={}", wake::REQUESTS));
    let mut stream = std::pin::pin!(watcher(requests(&ctx), only).default_backoff());
    let mut known = Entries::new();
    while let Some(event) = stream.next().await {
        match broken("ConfigMap", event) {
            Some(Event::Apply(requests) | Event::InitApply(requests)) => {
                let entries = requests.data.unwrap_or_default();
                heed(&known, &entries, &ctx).await;
                known = entries;
            }
            Some(Event::Delete(_)) => {
                known.clear();
                make(&ctx).await;
            }
            Some(Event::Init | Event::InitDone) | None => {}
        }
    }
}

/// Wakes whom those of `entries` are for that were not `known`: of each that changes all are told again.
async fn heed(known: &Entries, entries: &Entries, ctx: &Context) {
    let exists = |tenant: &Tenant| ctx.stores.tenants.get(tenant).is_some();
    let News { wanted, junk } = news(known, entries, exists);
    for tenant in wanted {
        ctx.tenants.state(&tenant).wish();
        ctx.wake(tenant);
    }
    // Else they would be there for ever.
    if !junk.is_empty()
        && let Err(error) = answered(&junk, ctx).await
    {
        let entries = junk.len();
        tracing::warn!(entries, %error, "entries of no tenant stay among the wake requests");
    }
}

/// What follows from the entries.
struct News<'a> {
    wanted: Vec<Tenant>,
    /// Entries of no tenant.
    junk: Vec<&'a str>,
}

fn news<'a>(known: &Entries, entries: &'a Entries, exists: impl Fn(&Tenant) -> bool) -> News<'a> {
    let (mut wanted, mut junk) = (Vec::new(), Vec::new());
    for (entry, value) in entries {
        let named = wake::tenant(entry);
        let named = named.map(|(namespace, name)| ObjectRef::new(name).within(namespace));
        match named.filter(&exists) {
            Some(_) if known.get(entry) == Some(value) => {}
            Some(tenant) => wanted.push(tenant),
            None => junk.push(entry.as_str()),
        }
    }
    News { wanted, junk }
}

/// Takes out entries: the tenant is awake, or nobody may wake it.
///
/// # Errors
/// The API server refused.
pub(crate) async fn answered(entries: &[&str], ctx: &Context) -> Result<(), kube::Error> {
    let none = entries
        .iter()
        .map(|entry| ((*entry).to_owned(), Value::Null));
    let none: Map<String, Value> = none.collect();
    let patch = Patch::Merge(json!({ "data": none }));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_that_are_new_or_changed_wake_anybody_and_those_of_nobody_go_together() {
        let entries = |pairs: &[(&str, &str)]| -> Entries {
            let owned = pairs.iter();
            owned
                .map(|(entry, value)| ((*entry).to_owned(), (*value).to_owned()))
                .collect()
        };
        let known = entries(&[("a.same", "1"), ("a.changed", "1"), ("a.gone", "1")]);
        let now = entries(&[
            ("a.same", "1"),
            ("a.changed", "2"),
            ("a.new", "2"),
            ("a.gone", "1"),
            ("junk", "2"),
        ]);
        let news = news(&known, &now, |tenant| tenant.name != "gone");
        let wanted: Vec<_> = news.wanted.into_iter().map(|tenant| tenant.name).collect();
        assert_eq!(wanted, ["changed", "new"]);
        assert_eq!(news.junk, ["a.gone", "junk"]);
    }
}
