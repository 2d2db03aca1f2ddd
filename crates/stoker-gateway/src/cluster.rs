//! Routes from the management cluster: the names of the tenants that are there, and the addresses of their API servers
//! that are ready. Two watches; of each object only what a route needs is read, and no object is kept. Of tenants that wake,
//! the API servers themselves are asked as well: a kubelet looks once a second.

mod directory;
mod objects;
mod readiness;

use std::sync::Arc;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use stoker_api::BaseDomain;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};

use self::directory::Directory;
use self::objects::{Slice, Tenant};
use self::readiness::Questions;
use crate::metrics::Metrics;
use crate::routes::Routes;

/// Objects that are asked for at a time: the largest are a page of tenants, of 10 kB each.
const PAGE: u32 = 100;

/// A client for the management cluster, of a pod or of a kubeconfig.
///
/// # Errors
/// There is no configuration, or it is of no use.
pub async fn client() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await?;
    Ok(stoker_kube::management_client(
        config,
        Arc::new(|_, _, _| {}),
    )?)
}

/// Follows the management cluster for ever; `listed` is called once, when all routes are known. While the API server is
/// away the routes stay as they are.
///
/// # Errors
/// Those of `listed`.
pub async fn follow(
    client: Client,
    domain: BaseDomain,
    routes: &Routes,
    metrics: &Metrics,
    listed: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let tenants = watch::<Tenant>(&client, watcher::Config::default()).map(Seen::Tenant);
    let ours = format!("{MANAGED_BY}={MANAGED_BY_VALUE}");
    let slices = watch::<Slice>(&client, watcher::Config::default().labels(&ours)).map(Seen::Slice);
    let mut seen = std::pin::pin!(futures::stream::select(tenants, slices));
    let mut directory = Directory::new(domain, routes);
    let mut questions = Questions::new()?;
    let mut listed = Some(listed);
    loop {
        questions.ask(directory.starting());
        let seen = tokio::select! {
            seen = seen.next() => seen.context("the watches ended")?,
            ready = questions.answered() => {
                directory.is_ready(&ready);
                continue;
            }
        };
        match seen {
            Seen::Tenant(Ok(event)) => directory.tenant(event),
            Seen::Slice(Ok(event)) => directory.slice(event),
            Seen::Tenant(Err(error)) | Seen::Slice(Err(error)) => {
                metrics.source_failures.inc();
                tracing::warn!(%error, "watch broken, resuming; the routes stay as they are");
            }
        }
        if directory.is_complete()
            && let Some(listed) = listed.take()
        {
            listed()?;
        }
    }
}

/// What a watch tells.
enum Seen {
    Tenant(watcher::Result<Event<Tenant>>),
    Slice(watcher::Result<Event<Slice>>),
}

fn watch<K>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), config.page_size(PAGE)).default_backoff()
}
