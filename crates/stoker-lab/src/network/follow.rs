//! A local copy of one kind of object that wakes a task on every change.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::runtime::{WatchStreamExt as _, reflector as reflect};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The lab has one API server, which is often restarted: a short constant pause finds it soon.
struct Pause;

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(500))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {}
}

/// A copy of all objects of one kind; the watch ends when this is dropped.
pub(super) struct Followed<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    task: JoinHandle<()>,
}

impl<K> Followed<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts to watch; `changed` is notified after each change has reached the copy.
    pub(super) fn start(api: Api<K>, changed: Arc<Notify>) -> Self {
        let (store, writer) = reflector::store();
        let events = watcher(api, watcher::Config::default()).backoff(Pause);
        let task = tokio::spawn(reflect(writer, events).for_each(move |event| {
            if let Err(error) = event {
                tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted, will retry");
            } else {
                changed.notify_one();
            }
            std::future::ready(())
        }));
        Self { store, task }
    }

    /// Waits for the first complete list.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        self.store
            .wait_until_ready()
            .await
            .context("the watch ended before its first list")
    }

    /// The objects as last seen, in no order.
    pub(super) fn objects(&self) -> Vec<Arc<K>> {
        self.store.state()
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Drop for Followed<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
