//! Tells the operator of connections to tenants that sleep.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use stoker_api::wake;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::routes::Route;

/// Between two tries to tell.
const PAUSE: Duration = Duration::from_millis(500);

/// To whom it is said that a tenant is wanted.
#[derive(Clone, Debug)]
pub struct Waker(mpsc::UnboundedSender<Box<str>>);

/// Tenants that are wanted, `namespace/name`.
pub type Wanted = mpsc::UnboundedReceiver<Box<str>>;

impl Waker {
    /// One, and what it is told.
    #[must_use]
    pub fn new() -> (Self, Wanted) {
        let (sender, wanted) = mpsc::unbounded_channel();
        (Self(sender), wanted)
    }

    /// Somebody wants the tenant of this route. Of a storm of connections one is told of.
    pub fn ask(&self, route: &Route) {
        if route.wants_waking(Instant::now()) {
            // Nobody listens any more only while the process ends.
            let _ = self.0.send(route.tenant.name().into());
        }
    }
}

/// Tells the operator for ever.
pub async fn tell(client: Client, mut wanted: Wanted, metrics: &Metrics) {
    // In a pod its own namespace, which is the operator's.
    let requests: Api<ConfigMap> = Api::default_namespaced(client);
    let mut tenants = Vec::new();
    while wanted.recv_many(&mut tenants, 1000).await > 0 {
        let now = format!("{:.0}", Timestamp::now());
        let entries: Map<String, Value> = tenants
            .drain(..)
            .filter_map(|tenant| {
                let (namespace, name) = tenant.split_once('/')?;
                Some((wake::entry(namespace, name), json!(now)))
            })
            .collect();
        let number = u64::try_from(entries.len()).unwrap_or_default();
        let patch = Patch::Merge(json!({ "data": entries }));
        while let Err(error) = requests
            .patch(wake::REQUESTS, &PatchParams::default(), &patch)
            .await
        {
            metrics.source_failures.inc();
            tracing::warn!(%error, "the operator is not told that tenants are wanted, trying again");
            tokio::time::sleep(PAUSE).await;
        }
        metrics.wakes.inc_by(number);
    }
}
