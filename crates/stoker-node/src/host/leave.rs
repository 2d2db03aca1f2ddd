//! `stoker-node leave`: what join made, undone, and nothing else.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stoker_api::labels::LEFT;

use super::access::{Who, client};
use super::join::authorities;
use super::paths::{AUTHORITY, KUBECONFIG, KUBELET, Membership};
use super::service::{self, AGENT_UNIT, KUBELET_DROP_IN, KUBELET_UNIT};
use super::{containers, volumes};

const LOOK: Duration = Duration::from_millis(500);

/// Takes this machine out of its tenant.
#[derive(clap::Args, Debug)]
pub(crate) struct LeaveArgs {
    /// How long pods may take to go elsewhere, seconds; 0 does not ask them to.
    #[arg(long, default_value_t = 60)]
    drain_seconds: u64,

    /// Leave the containers of its pods alone: for a machine whose container runtime is gone. What they have of their pods'
    /// volumes is removed nevertheless.
    #[arg(long)]
    keep_containers: bool,
}

/// Leaves. What cannot be done with the API server away is left undone, and said.
pub(crate) async fn leave(args: LeaveArgs) -> Result<()> {
    let Some(member) = Membership::read()? else {
        tracing::info!("this machine has joined nothing");
        // The key of an attempt, perhaps.
        return Membership::forget();
    };
    if !member.let_in {
        tracing::info!("this machine was not let in; its attempt is forgotten");
        return Membership::forget();
    }
    let kubelet = volumes::real(Path::new(KUBELET))?;
    // Of those that go elsewhere now, the runtime may keep something for a while.
    let pods = kubelet.as_deref().map(containers::pods_of).transpose()?;
    let patience = Duration::from_secs(args.drain_seconds);
    if let Err(error) = say_goodbye(&member, patience).await {
        tracing::warn!(
            error = format!("{error:#}"),
            "the tenant does not know that this node leaves: kubectl delete node {}",
            member.node
        );
    }
    // Before the kubelet goes, so that nobody starts it again.
    remove_file(super::paths::KUBELET_CONFIG)?;
    service::stop().await?;
    if let Some(kubelet) = &kubelet {
        if !args.keep_containers {
            let pods = pods.unwrap_or_default();
            containers::remove_pods(kubelet, pods, &member.runtime).await?;
        }
        volumes::free_mounts(kubelet).await?;
    }
    for path in [KUBECONFIG, AUTHORITY, KUBELET_DROP_IN, AGENT_UNIT] {
        remove_file(path)?;
    }
    if service::is_unit_ours() {
        remove_file(KUBELET_UNIT)?;
    }
    service::reload()?;
    if let Some(kubelet) = &kubelet {
        volumes::empty(kubelet)?;
    }
    Membership::forget()?;
    tracing::info!(
        node = member.node,
        "left; what remains of its Node is removed when a machine joins under its name, or by kubectl delete node"
    );
    Ok(())
}

/// No new pods; those that are here go elsewhere as their budgets allow; then the mark by which the name is free.
async fn say_goodbye(member: &Membership, patience: Duration) -> Result<()> {
    let client = client(&member.server, Some(&authorities()?), &Who::this_node())?;
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = |patch| async {
        let patch = Patch::Merge(patch);
        nodes
            .patch(&member.node, &PatchParams::default(), &patch)
            .await
    };
    patch(json!({ "spec": { "unschedulable": true } })).await?;
    if !patience.is_zero() {
        evict(&client, &member.node, patience).await?;
    }
    let now = Timestamp::now().to_string();
    patch(json!({ "metadata": { "annotations": { LEFT: now } } })).await?;
    Ok(())
}

/// Asks until no pod is left but those that belong to the node.
async fn evict(client: &Client, node: &str, patience: Duration) -> Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let begun = Instant::now();
    loop {
        let mut left = pods.list(&of_node).await?.items;
        left.retain(|pod| !belongs_to_node(pod));
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let names: Vec<_> = left.iter().map(kube::ResourceExt::name_any).collect();
            tracing::warn!(
                pods = names.join(" "),
                "these have not gone, and end with the kubelet"
            );
            return Ok(());
        }
        for pod in left
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        {
            let namespace = pod.namespace().unwrap_or_default();
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            // A budget that says no is asked again.
            if let Err(error) = pods.evict(&pod.name_any(), &EvictParams::default()).await {
                tracing::debug!(pod = pod.name_any(), error = %error, "not evicted yet");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Of a `DaemonSet`, a static pod's mirror, or ended.
fn belongs_to_node(pod: &Pod) -> bool {
    let ended = |phase: &String| phase == "Succeeded" || phase == "Failed";
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_ref());
    pod.annotations()
        .contains_key("kubernetes.io/config.mirror")
        || pod
            .owner_references()
            .iter()
            .any(|owner| owner.kind == "DaemonSet")
        || phase.is_some_and(ended)
}

fn remove_file(path: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {path}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_the_node_are_not_asked_to_go() {
        let pod = |metadata, phase: &str| -> Pod {
            let object = json!({ "metadata": metadata, "status": { "phase": phase } });
            serde_json::from_value(object).unwrap()
        };
        let owner = |kind: &str| json!({ "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": "a", "uid": "u" }] });
        assert!(belongs_to_node(&pod(owner("DaemonSet"), "Running")));
        assert!(belongs_to_node(&pod(
            json!({ "annotations": { "kubernetes.io/config.mirror": "x" } }),
            "Running"
        )));
        assert!(belongs_to_node(&pod(json!({}), "Succeeded")));
        assert!(!belongs_to_node(&pod(owner("ReplicaSet"), "Running")));
    }
}
