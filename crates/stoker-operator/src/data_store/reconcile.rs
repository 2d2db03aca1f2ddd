//! One pass over a `DataStore`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::v1alpha1::{DataStore, DataStoreStatus, TenantControlPlane};
use stoker_etcd::{Pool, PoolConfig};
use stoker_kube::conditions;

use super::credentials::Credentials;
use super::pools::{Entry, OpenPool};
use super::{peers, sweep};
use crate::FIELD_MANAGER;
use crate::context::Context;
use crate::metrics::{Controller, Outcome};

/// Keeps a `DataStore` while tenants' data is in it.
pub const FINALIZER: &str = "stoker.dev/tenant-control-planes";
/// A healthy store is looked at again this often: a read per member.
const RECHECK: Duration = Duration::from_mins(5);
/// How far back watches and paged lists of tenants can go on: `kube-apiserver
/// --etcd-compaction-interval`'s default.
const HISTORY: Duration = Duration::from_secs(290);
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
}

impl Error {
    /// `CamelCase` reason for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::WriteStatus(_) => "StatusNotWritten",
            Self::Finalizer(_) => "FinalizerNotSet",
        }
    }
}

/// Looks at the store, says what it found, wakes its tenants when that is news.
///
/// # Errors
/// The management API refused a write.
pub async fn reconcile(object: Arc<DataStore>, ctx: Arc<Context>) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::DataStore);
    let name = object.name_any();
    let used_by = tenants_of(&ctx, &name);
    if object.meta().deletion_timestamp.is_some() && used_by.is_empty() {
        ctx.pools.remove(&name);
        set_finalizer(&object, &ctx, false).await?;
        return Ok(Action::await_change());
    }
    set_finalizer(&object, &ctx, object.meta().deletion_timestamp.is_none()).await?;

    let (entry, version) = look(&object, &ctx).await;
    let problem = match &entry {
        Entry::Open(open) => open.problem.clone(),
        Entry::Closed(reason, message) => Some((*reason, message.clone())),
    };
    let mut next = if problem.is_some() {
        RECHECK_PROBLEM
    } else {
        RECHECK
    };
    if let (None, Entry::Open(open)) = (&problem, &entry) {
        match sweep::sweep(&open.pool, Timestamp::now()).await {
            Ok((purged, due)) => {
                for id in purged {
                    tracing::info!(data_store = %name, storage_id = %id, "retention over, data purged");
                }
                if let Some(due) = due {
                    let wait = Timestamp::now().duration_until(due);
                    next = next.min(
                        Duration::try_from(wait)
                            .unwrap_or_default()
                            .max(Duration::from_secs(1)),
                    );
                }
            }
            Err(error) => {
                tracing::warn!(data_store = %name, error = %error, "retained data not swept");
            }
        }
    }
    let news = ctx.pools.set(&name, entry);
    write_status(&object, &ctx, problem, version, used_by).await?;
    if news {
        ctx.wake_tenants_of(&name);
    }
    ctx.metrics.finished(Controller::DataStore, Outcome::Done);
    Ok(Action::requeue(next))
}

/// Opens the store if its credentials are new and checks it. While they cannot be read, what was
/// opened with the former ones is kept, with the problem: running tenants still need it.
async fn look(object: &DataStore, ctx: &Context) -> (Entry, Option<String>) {
    let before = match ctx.pools.get(&object.name_any()) {
        Some(Entry::Open(open)) => Some(open),
        _ => None,
    };
    let closed = |reason: &'static str, message: String| match &before {
        Some(open) => Entry::Open(Arc::new(OpenPool {
            problem: Some((reason, message)),
            ..OpenPool::clone(open)
        })),
        None => Entry::Closed(reason, message),
    };
    let credentials = match Credentials::read(&ctx.client, &object.spec).await {
        Ok(credentials) => credentials,
        Err(error) => return (closed(error.category(), error.to_string()), None),
    };
    let opened = match &before {
        Some(open) if open.credentials == credentials => {
            Ok((open.pool.clone(), open.authority.clone()))
        }
        _ => open(&credentials).await,
    };
    let (pool, authority) = match opened {
        Ok(opened) => opened,
        Err((reason, message)) => return (closed(reason, message), None),
    };
    let (problem, version) = match pool.check().await {
        Ok(facts) => (None, Some(facts.cluster_version.to_string())),
        Err(error) => (Some((error.category(), error.to_string())), None),
    };
    let known = before
        .as_ref()
        .filter(|open| open.credentials.endpoints == credentials.endpoints);
    let known = known.map(|open| open.peers.clone()).unwrap_or_default();
    let peers = peers::peers(&credentials.endpoints, known, &ctx.client).await;
    let former = before.as_ref().and_then(|open| open.checkpoint);
    let checkpoint = if problem.is_none() {
        compact(&pool, former).await
    } else {
        former
    };
    let open = OpenPool {
        credentials,
        pool,
        authority,
        peers,
        checkpoint,
        problem,
    };
    (Entry::Open(Arc::new(open)), version)
}

/// Forgets revisions older than [`HISTORY`], as API servers that own their etcd do; nothing is written
/// to a pool in which nothing happened.
async fn compact(pool: &Pool, former: Option<(Timestamp, i64)>) -> Option<(Timestamp, i64)> {
    let now = Timestamp::now();
    if former.is_some_and(|(at, _)| now.duration_since(at).unsigned_abs() < HISTORY) {
        return former;
    }
    let newest = match pool.revision().await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::warn!(error = %error, "revision of the pool not read");
            return former;
        }
    };
    if let Some((_, old)) = former
        && old < newest
        && let Err(error) = pool.compact(old).await
    {
        tracing::warn!(error = %error, "pool not compacted");
        return former;
    }
    Some((now, newest))
}

async fn open(
    credentials: &Credentials,
) -> Result<(Pool, Arc<stoker_pki::Authority>), (&'static str, String)> {
    let authority = credentials
        .authority()
        .map_err(|error| (error.category(), error.to_string()))?;
    let config = PoolConfig {
        endpoints: credentials.endpoints.clone(),
        certificate_authority: credentials.authority_certificate.clone(),
        client_certificate: credentials.client_certificate.clone(),
        client_key: credentials.client_key.clone(),
    };
    let pool = Pool::connect(&config)
        .await
        .map_err(|error| (error.category(), error.to_string()))?;
    Ok((pool, Arc::new(authority)))
}

/// Tenants whose state is in `name`, `namespace/name`, sorted.
fn tenants_of(ctx: &Context, name: &str) -> Vec<String> {
    let mut used_by: Vec<String> = ctx
        .stores
        .tenants
        .state_filter(|tenant| data_store_of(tenant) == Some(name))
        .iter()
        .map(|tenant| {
            format!(
                "{}/{}",
                tenant.namespace().unwrap_or_default(),
                tenant.name_any()
            )
        })
        .collect();
    used_by.sort();
    used_by
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

async fn write_status(
    object: &DataStore,
    ctx: &Context,
    problem: Option<(&'static str, String)>,
    version: Option<String>,
    used_by: Vec<String>,
) -> Result<(), Error> {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let mut new = DataStoreStatus {
        observed_generation: generation,
        ready: problem.is_none(),
        version: version.or_else(|| old.version.clone()),
        used_by,
        conditions: old.conditions.clone(),
    };
    let (reason, message) = problem.as_ref().map_or(
        (
            "Available",
            "every member answers, with a safe version and authentication on",
        ),
        |(reason, message)| (*reason, message.as_str()),
    );
    conditions::set(
        &mut new.conditions,
        "Ready",
        problem.is_none(),
        reason,
        message,
        generation,
        Timestamp::now(),
    );
    let written = stoker_kube::write_status(&ctx.client, object, object.status.as_ref(), &new)
        .await
        .map_err(Error::WriteStatus)?;
    if written && old.ready != new.ready {
        tracing::info!(data_store = %object.name_any(), ready = new.ready, reason, "data store changed");
        ctx.events
            .publish(
                &object.object_ref(&()),
                problem.is_some(),
                reason,
                "Check",
                message,
            )
            .await;
    }
    Ok(())
}

async fn set_finalizer(object: &DataStore, ctx: &Context, wanted: bool) -> Result<(), Error> {
    let has = object.finalizers().iter().any(|name| name == FINALIZER);
    if has == wanted || (wanted && object.meta().deletion_timestamp.is_some()) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    } else {
        finalizers.retain(|name| name != FINALIZER);
    }
    let patch = serde_json::json!({ "metadata": {
        "finalizers": finalizers, "resourceVersion": object.resource_version(),
    }});
    let stores: Api<DataStore> = Api::all(ctx.client.clone());
    match stores
        .patch(
            &object.name_any(),
            &PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..Default::default()
            },
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() && !wanted => Ok(()),
        Err(error) => Err(Error::Finalizer(Box::new(error))),
    }
}

/// A reference for events and queues.
#[must_use]
pub fn reference(name: &str) -> ObjectRef<DataStore> {
    ObjectRef::new(name)
}
