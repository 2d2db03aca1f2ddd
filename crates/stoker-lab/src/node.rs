//! A node as its API server sees it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::{Api, Client};

use crate::host::Host;

/// Waits at most for `limit` until the node of the host `kubelet` is ready.
///
/// # Errors
/// Why it is not, and where its kubelet's log is.
pub(crate) async fn wait_ready(client: &Client, kubelet: &Host, limit: Duration) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let begun = Instant::now();
    loop {
        let node = nodes.get_opt(kubelet.name()).await;
        let node = node.with_context(|| format!("reading the node {}", kubelet.name()))?;
        let Err(why) = ready(node.and_then(|node| node.status)) else {
            return Ok(());
        };
        ensure!(
            begun.elapsed() < limit,
            "the node {} is not ready: {why}; see {}",
            kubelet.name(),
            kubelet.log("kubelet").display()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The reason when it is not.
fn ready(status: Option<NodeStatus>) -> Result<(), String> {
    let conditions = status.and_then(|status| status.conditions);
    let ready = conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => Ok(()),
        Some(ready) => Err(ready
            .message
            .unwrap_or_else(|| "its kubelet gave no reason".to_owned())),
        None => Err("its kubelet did not register".to_owned()),
    }
}
