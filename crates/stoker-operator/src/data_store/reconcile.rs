//! One pass over a `DataStore`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::labels::ABANDON_DATA;
use stoker_api::v1alpha1::{DataStore, TenantControlPlane};

use super::look::{Look, look};
use super::pools::Entry;
use super::status::{self, Verdict};
use super::stock::{self, Stock};
use crate::contained::{Panicked, contained};
use crate::context::Context;
use crate::finalizer;
use crate::metrics::{Controller, Outcome};
use crate::watches::lean;

/// Keeps a `DataStore` while tenants' data is in it.
pub const FINALIZER: &str = "stoker.dev/tenant-control-planes";
/// A healthy store is looked at again this often: a read per member.
const RECHECK: Duration = Duration::from_mins(5);
/// A store that works without some of its members, or waits for its own end, this often.
const RECHECK_SOON: Duration = Duration::from_secs(30);
/// A store with a problem, this often: people are waiting for it.
const RECHECK_PROBLEM: Duration = Duration::from_secs(5);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot write the DataStore's status")]
    WriteStatus(#[source] stoker_kube::Error),
    #[error("cannot set the DataStore's finalizer")]
    Finalizer(#[source] Box<kube::Error>),
    #[error("cannot list the TenantControlPlanes")]
    Tenants(#[source] Box<kube::Error>),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Error {
    /// `CamelCase` reason for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::WriteStatus(_) => "StatusNotWritten",
            Self::Finalizer(_) => "FinalizerNotSet",
            Self::Tenants(_) => "TenantsNotListed",
            Self::Panicked(_) => Panicked::CATEGORY,
        }
    }
}

/// Counts the store's tenants; when it is due, looks at the store too.
///
/// # Errors
/// The management API refused a write.
pub async fn reconcile(object: Arc<DataStore>, ctx: Arc<Context>) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::DataStore);
    let name = object.name_any();
    let used_by = tenants_of(&ctx, &name);
    let leaving = object.meta().deletion_timestamp.is_some();
    if let (Some((status, wait)), false) = (ctx.looks.last(&name), leaving) {
        status::count(&object, &ctx, status, used_by.clone()).await?;
        ctx.looks.counted(&name, used_by);
        ctx.metrics.finished(Controller::DataStore, Outcome::Done);
        return Ok(Action::requeue(wait));
    }
    ctx.looks.begin(&name);
    // Also one that panics is due again at once: what it has not found must not be counted as found.
    let done = contained(look_at(&object, used_by, &ctx)).await;
    if done.is_err() {
        ctx.looks.ask(&name);
    }
    done
}

/// Looks at the store, says what it found, wakes its tenants when that is news.
async fn look_at(
    object: &DataStore,
    mut used_by: Vec<String>,
    ctx: &Arc<Context>,
) -> Result<Action, Error> {
    let name = object.name_any();
    let leaving = object.meta().deletion_timestamp.is_some();
    if !leaving {
        set_finalizer(object, ctx, true).await?;
    }
    let look = look(object, ctx).await;
    let stock = take_stock(&look, &name, ctx).await;
    let kept_by = if leaving {
        let version = object.status.as_ref().map(|status| &status.version);
        let opened = look.facts.is_some() || version.is_some_and(Option::is_some);
        let mut kept_by = kept_by(&name, &used_by, stock.as_ref(), opened);
        if let (Some(_), Some(stock), true) = (&kept_by, &stock, used_by.is_empty())
            && let Some(heir) = heir(&name, stock, ctx).await
        {
            tracing::info!(
                heir,
                "another DataStore has the same pool and keeps what is in it"
            );
            kept_by = None;
        }
        let abandoned = used_by.is_empty() && object.annotations().get(ABANDON_DATA) == Some(&name);
        if kept_by.is_none() || abandoned {
            // The cache may not show yet what a tenant has just recorded.
            used_by = tenants_there(&name, ctx).await?;
            if used_by.is_empty() {
                return let_go(object, ctx, kept_by).await;
            }
            kept_by = self::kept_by(&name, &used_by, stock.as_ref(), opened);
        }
        kept_by
    } else {
        None
    };
    let verdict = Verdict::of(&look, stock.as_ref(), kept_by);
    let next = next(&look, &verdict, stock.as_ref());
    let version = look.facts.map(|facts| facts.cluster_version.to_string());
    let news = ctx.pools.set(&name, look.entry);
    let status = status::write(object, ctx, &verdict, version, used_by).await?;
    ctx.looks.done(&name, status, next);
    if news {
        ctx.wake_tenants_of(&name);
        ctx.networks_doubted.notify_one();
    }
    ctx.data_store_failures.succeeded(&reference(&name));
    ctx.metrics.finished(Controller::DataStore, Outcome::Done);
    Ok(Action::requeue(next))
}

/// What the owner records say; `None` while the pool cannot be asked.
async fn take_stock(look: &Look, name: &str, ctx: &Context) -> Option<Stock> {
    let (Entry::Open(open), Some(_)) = (&look.entry, &look.facts) else {
        return None;
    };
    let tenants = ctx.stores.tenants.state();
    let id = |tenant: &Arc<TenantControlPlane>| {
        let storage = tenant.status.as_ref()?.storage.as_ref()?;
        Some(storage.setup.schema.clone())
    };
    let living: BTreeSet<String> = tenants.iter().filter_map(id).collect();
    stock::take(&open.pool, &living, Timestamp::now())
        .await
        .inspect_err(|error| {
            tracing::warn!(data_store = %name, error = %error, "owner records not read or retained data not purged");
        })
        .ok()
}

/// Why a store that is being deleted has to stay: tenants, or data that would be forgotten with it. What never
/// worked holds nothing of ours.
fn kept_by(name: &str, used_by: &[String], stock: Option<&Stock>, opened: bool) -> Option<String> {
    if !used_by.is_empty() {
        let count = used_by.len();
        return Some(format!(
            "it is being deleted and goes once its {count} tenant(s) have gone: see status.usedBy"
        ));
    }
    let left = match stock {
        Some(stock) => stock.left()?,
        None if opened => "data that cannot be listed while the pool is away".to_owned(),
        None => return None,
    };
    Some(format!(
        "it is being deleted, but the pool holds {left}: wait, or, to leave that behind for ever, annotate this object with {ABANDON_DATA}={name}"
    ))
}

/// Another `DataStore` that stays and has the same pool: it remembers what is left there.
async fn heir(name: &str, stock: &Stock, ctx: &Context) -> Option<String> {
    for other in ctx.stores.data_stores.state() {
        let heir = other.name_any();
        let leaving = other.meta().deletion_timestamp.is_some();
        let Some(Entry::Open(open)) = ctx.pools.get(&heir) else {
            continue;
        };
        if heir == name || leaving || open.problem.is_some() {
            continue;
        }
        match open.pool.owners().await {
            Ok(records) if stock.is_among(&records) => return Some(heir),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(data_store = heir, error = %error, "owner records not read");
            }
        }
    }
    None
}

/// Lets the object go; `forgotten` is what it leaves behind.
async fn let_go(
    object: &DataStore,
    ctx: &Context,
    forgotten: Option<String>,
) -> Result<Action, Error> {
    let name = object.name_any();
    if forgotten.is_some() {
        let note = format!("what was in the pool is left behind, as {ABANDON_DATA} asks");
        let reference = object.object_ref(&());
        let events = &ctx.events;
        events
            .publish(&reference, true, "DataAbandoned", "Delete", &note)
            .await;
    }
    ctx.pools.remove(&name);
    set_finalizer(object, ctx, false).await?;
    ctx.data_store_failures.succeeded(&reference(&name));
    tracing::info!("data store let go");
    ctx.metrics.finished(Controller::DataStore, Outcome::Done);
    Ok(Action::await_change())
}

/// When to look again.
fn next(look: &Look, verdict: &Verdict, stock: Option<&Stock>) -> Duration {
    let failing = matches!(&look.entry, Entry::Open(open) if open.peers.is_failing());
    let away = look.facts.as_ref();
    let away = away.is_some_and(|facts| !facts.unreachable.is_empty());
    let usual = if verdict.problem || failing {
        RECHECK_PROBLEM
    } else if verdict.leaving || away {
        RECHECK_SOON
    } else {
        RECHECK
    };
    let Some(due) = stock.and_then(Stock::next) else {
        return usual;
    };
    let wait = Duration::try_from(Timestamp::now().duration_until(due)).unwrap_or_default();
    usual.min(wait.max(Duration::from_secs(1)))
}

/// Tenants whose state is in `name`, `namespace/name`, sorted.
fn tenants_of(ctx: &Context, name: &str) -> Vec<String> {
    let tenants = &ctx.stores.tenants;
    let tenants = tenants.state_filter(|tenant| data_store_of(tenant) == Some(name));
    sorted(tenants.iter().map(AsRef::as_ref))
}

/// The same, as the API server knows them now.
async fn tenants_there(name: &str, ctx: &Context) -> Result<Vec<String>, Error> {
    let uses = |tenant: &TenantControlPlane| data_store_of(tenant) == Some(name);
    let listed = lean::list(&ctx.client, uses).await;
    let tenants = listed.map_err(|error| Error::Tenants(Box::new(error)))?;
    Ok(sorted(tenants.iter()))
}

fn sorted<'a>(tenants: impl Iterator<Item = &'a TenantControlPlane>) -> Vec<String> {
    let name = |tenant: &TenantControlPlane| {
        format!(
            "{}/{}",
            tenant.namespace().unwrap_or_default(),
            tenant.name_any()
        )
    };
    let mut names: Vec<String> = tenants.map(name).collect();
    names.sort();
    names
}

/// The store that holds a tenant's state, as recorded.
#[must_use]
pub fn data_store_of(tenant: &TenantControlPlane) -> Option<&str> {
    Some(
        tenant
            .status
            .as_ref()?
            .storage
            .as_ref()?
            .data_store_name
            .as_str(),
    )
}

async fn set_finalizer(object: &DataStore, ctx: &Context, wanted: bool) -> Result<(), Error> {
    let stores: Api<DataStore> = Api::all(ctx.client.clone());
    let written = finalizer::set_finalizer(&stores, object.meta(), FINALIZER, wanted).await;
    written.map_err(|error| Error::Finalizer(Box::new(error)))
}

/// A reference for events and queues.
#[must_use]
pub fn reference(name: &str) -> ObjectRef<DataStore> {
    ObjectRef::new(name)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;
    use crate::watches::tests::{operator, operator_with};

    fn data_store(metadata: &serde_json::Value) -> DataStore {
        serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore",
            "metadata": metadata,
            "spec": {
                "driver": "etcd", "endpoints": ["127.0.0.1:1"],
                "tlsConfig": {
                    "certificateAuthority": { "certificate": {} },
                    "clientCertificate": { "certificate": {}, "privateKey": {} },
                },
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn of_a_look_that_panics_nothing_counts_as_found() {
        let broken = service_fn(
            async |_: Request<Body>| -> Result<Response<Body>, Infallible> { panic!("by a test") },
        );
        let ctx = operator_with(Client::new(broken, "default")).ctx;
        for _ in 0..2 {
            let store = Arc::new(data_store(&json!({ "name": "x" })));
            let passed = reconcile(store, Arc::clone(&ctx)).await;
            assert!(matches!(passed, Err(Error::Panicked(_))), "{passed:?}");
            assert!(ctx.looks.last("x").is_none(), "it is looked at again");
        }
    }

    /// A store that never worked is being deleted, and the cache knows no tenant of it; the API server knows these.
    /// Returns whether it was let go.
    async fn let_go_beside(data_stores: &[&str]) -> bool {
        let leaving = data_store(&json!({
            "name": "x", "resourceVersion": "7", "finalizers": [FINALIZER],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }));
        let tenant = |store: &&str| {
            json!({
                "metadata": { "name": "one", "namespace": "a", "uid": "u" },
                "spec": {
                    "controlPlane": { "service": { "serviceType": "ClusterIP" } },
                    "kubernetes": { "version": "v1.36.3", "kubelet": {} },
                },
                "status": { "storage": { "driver": "etcd", "dataStoreName": store, "setup": { "schema": "id", "user": "id" } } },
            })
        };
        let tenants: Vec<_> = data_stores.iter().map(tenant).collect();
        let (parts, mut server) = operator(&[]);
        let group = "/apis/stoker.dev/v1alpha1";
        let asked = async {
            let path = format!("{group}/tenantcontrolplanes");
            server.list(&path, "TenantControlPlane", &tenants).await;
            server.next().await
        };
        tokio::select! {
            _ = look_at(&leaving, Vec::new(), &parts.ctx) => panic!("it asked for nothing more"),
            (method, path) = asked => {
                assert_eq!(method, "PATCH");
                path == format!("{group}/datastores/x")
            }
        }
    }

    #[tokio::test]
    async fn a_store_goes_only_when_the_api_server_knows_of_no_tenant_in_it() {
        assert!(let_go_beside(&[]).await);
        assert!(let_go_beside(&["y"]).await);
        assert!(!let_go_beside(&["y", "x"]).await, "the cache lags behind");
    }

    #[test]
    fn a_store_stays_for_tenants_and_for_data_that_may_be_there() {
        let tenant = ["a/one".to_owned()];
        let empty = Stock::default();
        assert!(kept_by("x", &tenant, Some(&empty), true).is_some());
        assert_eq!(kept_by("x", &[], Some(&empty), true), None);
        assert_eq!(kept_by("x", &[], None, false), None, "it never worked");
        let unknown = kept_by("x", &[], None, true).unwrap();
        assert!(unknown.contains("stoker.dev/abandon-data=x"), "{unknown}");
    }
}
