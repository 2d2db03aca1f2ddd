//! Keeps the packet filter of this host in step with the API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client};
use tokio::sync::Notify;

use super::compile::{Ruleset, compile};
use super::facts::{self, CniAddresses, PodFacts};
use super::follow::Followed;
use super::{NetworkArgs, cni, nft};

/// How long changes are gathered, so that a burst costs one transaction.
const GATHER: Duration = Duration::from_millis(20);

/// How long to wait after a refused transaction; the former rules stay in force meanwhile.
const RETRY: Duration = Duration::from_millis(500);

/// Enforces every `NetworkPolicy` on this host's pods; returns only on an error.
pub(super) async fn enforce(client: Client, args: &NetworkArgs) -> anyhow::Result<()> {
    let changed = Arc::new(Notify::new());
    let world = World {
        pods: Followed::start(Api::all(client.clone()), changed.clone()),
        namespaces: Followed::start(Api::all(client.clone()), changed.clone()),
        policies: Followed::start(Api::all(client), changed.clone()),
        node_name: args.node_name.clone(),
        pod_interface: args.pod_interface.clone(),
        cni_results: args.cni_results.clone(),
    };
    cni::watch(&args.cni_results, changed.clone())?;
    world.pods.ready().await?;
    world.namespaces.ready().await?;
    world.policies.ready().await?;
    changed.notify_one();

    let mut in_force = None;
    loop {
        changed.notified().await;
        let woken = Instant::now();
        tokio::time::sleep(GATHER).await;
        let ruleset = world.compile();
        if in_force.as_ref() == Some(&ruleset) {
            continue;
        }
        if let Err(error) = nft::apply(ruleset.script()).await {
            tracing::error!(
                error = format!("{error:#}"),
                "network policy rules not applied"
            );
            tokio::time::sleep(RETRY).await;
            changed.notify_one();
            continue;
        }
        tracing::info!(
            isolated_pods = ruleset.isolated(),
            milliseconds = woken.elapsed().as_millis(),
            "network policy rules applied"
        );
        in_force = Some(ruleset);
    }
}

struct World {
    pods: Followed<Pod>,
    namespaces: Followed<Namespace>,
    policies: Followed<NetworkPolicy>,
    node_name: String,
    pod_interface: String,
    cni_results: PathBuf,
}

impl World {
    fn compile(&self) -> Ruleset {
        let pods = self.pods.objects();
        let early = if facts::local_pods_waiting(&pods, &self.node_name) {
            cni::addresses(&self.cni_results)
        } else {
            CniAddresses::new()
        };
        let pods = PodFacts::collect(&pods, &self.node_name, &early);
        let namespaces = facts::namespace_labels(&self.namespaces.objects());
        compile(
            &pods,
            &namespaces,
            &self.policies.objects(),
            &self.pod_interface,
        )
    }
}
