//! What `leave` says to the tenant: no new pods, then that those which are here go elsewhere, and at the end, when nothing of
//! the node runs any more, the mark by which its name is free.
//!
//! The mark is last: whoever joins under the name of a Node so marked takes its place, whatever still runs here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::labels::{LEFT, LISTENER, TUNNEL};

use super::access::{Who, client};
use super::join::authorities;
use super::machine::{Another, Machine};
use super::paths::{Leaving, Membership};

const LOOK: Duration = Duration::from_millis(500);
/// An API server that is overloaded, or restarts, is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Cordons the Node, and has its pods go elsewhere as their budgets allow. What it has done stands in `member` first.
pub(super) async fn drain(member: &mut Membership, patience: Duration) -> Result<()> {
    let client = as_node(member)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let found = again(async || nodes.get(&member.node).await).await;
    let found = found.context("reading the Node")?;
    Machine::at(Path::new("/")).ensure_is(&found)?;
    let leaving = leaving(member, &found)?;
    member.leaving = Some(leaving);
    member.write()?;
    let cordon = json!({ "metadata": { "uid": found.uid() }, "spec": { "unschedulable": true } });
    patch(&nodes, &member.node, cordon)
        .await
        .context("cordoning the Node")?;
    // Again: until it was cordoned, the agent may have taken a record of the same for one that is over.
    member.write()?;
    if patience.is_zero() {
        return Ok(());
    }
    let pods: Api<Pod> = Api::all(client.clone());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={}", member.node));
    let list = async || Ok(pods.list(&of_node).await?.items);
    let evict = async |pod: &Pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        // A budget that says no is asked again.
        if let Err(error) = pods.evict(&pod.name_any(), &EvictParams::default()).await {
            tracing::debug!(pod = pod.name_any(), error = %error, "not evicted yet");
        }
    };
    until_gone(list, evict, patience).await
}

/// Marks the Node as left: nothing of it runs any more. Once: a Node of the name may be another machine's after that.
pub(super) async fn mark(member: &mut Membership) -> Result<()> {
    if member.leaving.as_ref().is_some_and(|leaving| leaving.told) {
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(as_node(member)?);
    let found = again(async || nodes.get(&member.node).await).await;
    let found = found.context("reading the Node")?;
    Machine::at(Path::new("/")).ensure_is(&found)?;
    let leaving = leaving(member, &found)?;
    // From here on it does not come back by its certificate.
    let leaving = Leaving {
        marked: true,
        ..leaving
    };
    member.leaving = Some(leaving.clone());
    member.write()?;
    let now = Timestamp::now().to_string();
    // Whoever comes under its name without an agent has none of what the host's does.
    let mark = json!({ "metadata": {
        "uid": found.uid(), "annotations": { LEFT: now }, "labels": { LISTENER: null, TUNNEL: null },
    } });
    patch(&nodes, &member.node, mark)
        .await
        .context("marking the Node as left")?;
    member.leaving = Some(Leaving {
        told: true,
        ..leaving
    });
    member.write()
}

/// Takes back what a `leave` that was cut off has done to the Node, for a join that goes on by the node's certificate.
pub(super) async fn take_back(member: &mut Membership, client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = again(async || nodes.get_opt(&member.node).await).await;
    if let Some(found) = found.context("reading the Node")?
        && let Some(back) = back(&found, member.leaving.as_ref())
    {
        Machine::at(Path::new("/")).ensure_is(&found)?;
        patch(&nodes, &member.node, back)
            .await
            .context("taking back that the node leaves")?;
        tracing::info!("the node leaves no more");
    }
    member.leaving = None;
    member.write()
}

fn as_node(member: &Membership) -> Result<Client> {
    client(&member.server, Some(&authorities()?), &Who::this_node())
}

pub(super) fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

/// How far this Node is, before anything else is done to it.
fn leaving(member: &Membership, found: &Node) -> Result<Leaving> {
    let uid = found.uid().unwrap_or_default();
    let is_cordoned = is_cordoned(found);
    let Some(before) = &member.leaving else {
        return Ok(Leaving {
            uid,
            cordoned: !is_cordoned,
            marked: false,
            told: false,
        });
    };
    ensure!(before.uid == uid, Another(member.node.clone()));
    Ok(Leaving {
        cordoned: before.cordoned || !is_cordoned,
        ..before.clone()
    })
}

/// What makes a Node again what it was before `leave`; `None` where that has done nothing to it. In the version that was read:
/// whoever joins under the name of one that has left removes it.
fn back(found: &Node, leaving: Option<&Leaving>) -> Option<Value> {
    // Earlier agents cordoned, marked, and wrote nothing down.
    let is_marked = found.annotations().contains_key(LEFT);
    let is_cordoned = leaving
        .is_some_and(|leaving| leaving.cordoned && found.uid().as_ref() == Some(&leaving.uid));
    (is_marked || is_cordoned).then(|| {
        json!({
            "metadata": {
                "uid": found.uid(), "resourceVersion": found.resource_version(),
                "annotations": { LEFT: null },
            },
            "spec": { "unschedulable": null },
        })
    })
}

async fn patch(nodes: &Api<Node>, name: &str, patch: Value) -> Result<(), kube::Error> {
    let patch = Patch::Merge(patch);
    let params = PatchParams::default();
    again(async || nodes.patch(name, &params, &patch).await)
        .await
        .map(drop)
}

/// Asks again as long as the answer is none, or that it is to be asked later.
async fn again<T>(ask: impl AsyncFn() -> Result<T, kube::Error>) -> Result<T, kube::Error> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && begun.elapsed() < PATIENCE => {
                tracing::debug!(error = %error, "asked again");
                tokio::time::sleep(LOOK).await;
            }
            answer => return answer,
        }
    }
}

fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// Asks until no pod is left but those that belong to the node; who is not told of them looks again.
async fn until_gone(
    list: impl AsyncFn() -> Result<Vec<Pod>>,
    evict: impl AsyncFn(&Pod),
    patience: Duration,
) -> Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        let listed = list().await;
        let is_over = begun.elapsed() > patience;
        match listed {
            Err(error) if is_over => return Err(error.context("asking for the node's pods")),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "pods not told"),
            Ok(mut left) => {
                left.retain(|pod| !belongs_to_node(pod));
                if left.is_empty() {
                    return Ok(());
                }
                if is_over {
                    let names: Vec<_> = left.iter().map(kube::ResourceExt::name_any).collect();
                    tracing::warn!(
                        pods = names.join(" "),
                        "these have not gone, and end with the kubelet"
                    );
                    return Ok(());
                }
                left.retain(|pod| pod.metadata.deletion_timestamp.is_none());
                for pod in &left {
                    evict(pod).await;
                }
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use anyhow::bail;

    use super::*;

    fn pod(metadata: &Value, phase: &str) -> Pod {
        let object = json!({ "metadata": metadata, "status": { "phase": phase } });
        serde_json::from_value(object).unwrap()
    }

    fn node(annotations: &Value, unschedulable: bool) -> Node {
        let object = json!({
            "metadata": { "uid": "u1", "resourceVersion": "7", "annotations": annotations },
            "spec": { "unschedulable": unschedulable },
        });
        serde_json::from_value(object).unwrap()
    }

    fn member(leaving: Option<Leaving>) -> Membership {
        let text = r#"{ "server": "a:6443", "node": "w1", "tunnel": null, "joined": true }"#;
        Membership {
            leaving,
            ..serde_json::from_str(text).unwrap()
        }
    }

    #[test]
    fn pods_of_the_node_are_not_asked_to_go() {
        let owner = |kind: &str| json!({ "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": "a", "uid": "u" }] });
        assert!(belongs_to_node(&pod(&owner("DaemonSet"), "Running")));
        let mirror = json!({ "annotations": { "kubernetes.io/config.mirror": "x" } });
        assert!(belongs_to_node(&pod(&mirror, "Running")));
        assert!(belongs_to_node(&pod(&json!({}), "Succeeded")));
        assert!(!belongs_to_node(&pod(&owner("ReplicaSet"), "Running")));
    }

    #[tokio::test]
    async fn pods_that_are_not_told_once_are_asked_for_again() {
        let asked = Cell::new(0);
        let evicted = RefCell::new(Vec::new());
        let list = async || {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => bail!("429"),
                2 => Ok(vec![pod(&json!({ "name": "a" }), "Running")]),
                3 => bail!("reset"),
                _ => Ok(vec![]),
            }
        };
        let evict = async |pod: &Pod| evicted.borrow_mut().push(pod.name_any());
        until_gone(list, evict, Duration::from_mins(1))
            .await
            .unwrap();
        assert_eq!(
            (asked.get(), &*evicted.borrow()),
            (4, &vec!["a".to_owned()])
        );
        let never = until_gone(async || bail!("503"), async |_: &Pod| {}, Duration::ZERO);
        assert!(never.await.is_err());
    }

    #[test]
    fn the_node_of_another_machine_is_left_alone() {
        let found = node(&json!({}), false);
        assert_eq!(
            leaving(&member(None), &found).unwrap(),
            Leaving::cordoned("u1")
        );
        let other = leaving(&member(Some(Leaving::cordoned("u0"))), &found).unwrap_err();
        assert!(other.is::<Another>());
    }

    #[tokio::test]
    async fn what_was_told_is_not_told_again() {
        let told = Leaving {
            marked: true,
            told: true,
            ..Leaving::cordoned("u0")
        };
        let mut member = member(Some(told));
        // It would not get through.
        mark(&mut member).await.unwrap();
    }

    #[test]
    fn only_a_cordon_of_leave_is_taken_back() {
        let of_admin = node(&json!({}), true);
        let begun = leaving(&member(None), &of_admin).unwrap();
        assert!(!begun.cordoned);
        assert_eq!(back(&of_admin, Some(&begun)), None);
        assert_eq!(back(&of_admin, None), None);
        // A second run finds the cordon of the first.
        let again = leaving(&member(Some(Leaving::cordoned("u1"))), &of_admin).unwrap();
        assert!(again.cordoned);
        assert_eq!(back(&of_admin, Some(&Leaving::cordoned("u0"))), None);
        let taken = back(&of_admin, Some(&again)).unwrap();
        assert_eq!(taken["spec"], json!({ "unschedulable": null }));
        assert_eq!(taken["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn the_mark_of_an_earlier_agent_is_taken_back() {
        let marked = node(&json!({ LEFT: "2026-05-01T00:00:00Z" }), true);
        let taken = back(&marked, None).unwrap();
        assert_eq!(taken["metadata"]["annotations"], json!({ LEFT: null }));
    }
}
