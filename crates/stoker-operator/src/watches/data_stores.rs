//! `DataStore`s: what people write asks for a look at the pool.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use stoker_api::labels::ABANDON_DATA;
use stoker_api::v1alpha1::DataStore;

use super::{broken, cached, events};
use crate::context::Context;
use crate::data_store::reconcile::{FINALIZER, reference};

pub(super) async fn watch_data_stores(cache: Writer<DataStore>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(ctx.client.clone(), watcher::Config::default());
    let mut stream = std::pin::pin!(cached(cache, stream));
    while let Some(event) = stream.next().await {
        match broken("DataStore", event) {
            Some(Event::Apply(store) | Event::InitApply(store)) => {
                let name = store.name_any();
                let now = (
                    store.uid(),
                    store.metadata.generation,
                    store.metadata.deletion_timestamp.is_some(),
                    store.annotations().get(ABANDON_DATA).cloned(),
                );
                let held = store.finalizers().iter().any(|name| name == FINALIZER);
                let before = known.insert(name.clone(), (now.clone(), held));
                // Also when somebody took our finalizer away.
                if before.is_none_or(|(before, was_held)| before != now || (was_held && !held)) {
                    ctx.wake_data_store(&name);
                    ctx.networks_doubted.notify_one();
                }
            }
            Some(Event::Delete(store)) => {
                let name = store.name_any();
                known.remove(&name);
                ctx.pools.remove(&name);
                ctx.networks_doubted.notify_one();
                ctx.looks.ask(&name);
                ctx.data_store_failures.succeeded(&reference(&name));
                ctx.wake_tenants_of(&name);
            }
            Some(Event::InitDone) => {
                for store in ctx.stores.data_stores.state() {
                    ctx.wake_data_store(&store.name_any());
                }
            }
            Some(Event::Init) | None => {}
        }
    }
}
