//! What the machine has, told as labels of its Node; which agent runs on it, what that does, and whose certificates its kubelet has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::labels::{LISTENER, NODE_AUTHORITY, OF_HOST, TUNNEL};
use stoker_node::gpu;

use super::access::{Who, client};
use super::join::authorities;
use super::orders::Done;
use super::paths::Membership;

/// Annotation: the agent's version.
const AGENT: &str = "stoker.dev/node-agent";
/// Annotation: the labels that the agent has written, by their names.
const WRITTEN: &str = "stoker.dev/node-agent-labels";
/// Label of a Node of which NVIDIA's GPU feature discovery tells.
const FEATURE_DISCOVERY: &str = "nvidia.com/gfd.timestamp";
/// Before the names that are its then.
const NVIDIA: &str = "nvidia.com/";

/// What the agent does and has, beside what the machine has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own<'a> {
    /// What the tenant asks of it, and is done.
    pub(crate) done: Done,
    /// Pin of the first authority, and whether the kubelet's certificates are of it; not told where it is not known.
    pub(crate) authority: Option<(&'a str, bool)>,
}

/// Looks once, and tells what the Node does not say. The Node as it was found, if it has come.
pub(crate) async fn once(
    member: &Membership,
    observer: &mut gpu::Observer,
    own: Own<'_>,
) -> Result<Option<Node>> {
    let machine = observer.look(Path::new("/")).await;
    let labels = gpu::labels(&machine);
    let client = client(&member.server, Some(&authorities()?), &Who::this_node())?;
    let nodes: Api<Node> = Api::all(client);
    let found = nodes.get_opt(&member.node).await;
    let Some(node) = found.context("reading the Node")? else {
        return Ok(None);
    };
    if let Some(patch) = patch(&node, &labels, machine.silent, own) {
        nodes
            .patch(&member.node, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("writing labels of the Node")?;
    }
    Ok(Some(node))
}

/// The labels of a Node that this agent has written.
pub(super) fn written(node: &Node) -> BTreeSet<&str> {
    let names = node.annotations().get(WRITTEN);
    let names = names.into_iter().flat_map(|names| names.split(','));
    names.filter(|name| !name.is_empty()).collect()
}

/// What makes a Node say this; `None` when it does. What is no longer so is taken away if this agent has written it, unless it is
/// only not known now (`silent`); and what feature discovery tells is left to it.
fn patch(
    node: &Node,
    labels: &BTreeMap<&'static str, String>,
    silent: bool,
    own: Own<'_>,
) -> Option<Value> {
    let is_theirs = node.labels().contains_key(FEATURE_DISCOVERY);
    let is_ours = |name: &str| !(is_theirs && name.starts_with(NVIDIA));
    let wanted: BTreeMap<_, _> = labels.iter().filter(|(name, _)| is_ours(name)).collect();
    let mut changed = BTreeMap::new();
    for (name, value) in &wanted {
        if node.labels().get(**name) != Some(*value) {
            changed.insert(**name, json!(value));
        }
    }
    let written = written(node);
    let mut kept: BTreeSet<&str> = wanted.into_keys().copied().collect();
    for name in &written {
        let is_there = is_ours(name) && node.labels().contains_key(*name);
        if !is_there || kept.contains(name) {
            continue;
        }
        if silent {
            kept.insert(name);
        } else {
            changed.insert(name, Value::Null);
        }
    }
    // Nobody else's: the machine registers with them.
    for (label, done) in [
        (LISTENER, Some(own.done.listener)),
        (TUNNEL, own.done.tunnel),
    ] {
        let Some(done) = done else {
            continue;
        };
        let value = done.then_some(OF_HOST);
        if node.labels().get(label).map(String::as_str) != value {
            changed.insert(label, json!(value));
        }
    }
    // Somebody else's stays theirs, as long as it is right.
    kept.retain(|name| written.contains(name) || changed.contains_key(name));
    let kept = kept.into_iter().collect::<Vec<_>>().join(",");
    let mut annotations = BTreeMap::new();
    let version = env!("CARGO_PKG_VERSION");
    // Taken back where it is not so any more, as on a machine that went back to a former state.
    let told = node.annotations().get(NODE_AUTHORITY).map(String::as_str);
    let authority = own.authority.and_then(|(pin, has)| {
        if has {
            Some((NODE_AUTHORITY, pin))
        } else {
            (told == Some(pin)).then_some((NODE_AUTHORITY, ""))
        }
    });
    for (name, value) in [(AGENT, version), (WRITTEN, &kept)]
        .into_iter()
        .chain(authority)
    {
        let value = (!value.is_empty()).then_some(value);
        if node.annotations().get(name).map(String::as_str) != value {
            annotations.insert(name, value);
        }
    }
    let is_told = changed.is_empty() && annotations.is_empty();
    (!is_told).then(|| json!({ "metadata": { "labels": changed, "annotations": annotations } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: &str = gpu::LABELS[0];
    const COUNT: &str = gpu::LABELS[1];
    const HEALTHY: &str = gpu::LABELS[2];

    fn node(labels: &Value, written: &str) -> Node {
        let annotations = json!({ AGENT: env!("CARGO_PKG_VERSION"), WRITTEN: written });
        let metadata = json!({ "labels": labels, "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        labels.into()
    }

    /// What is written of labels, and the names that are the agent's then.
    fn change(node: &Node, wanted: &BTreeMap<&'static str, String>) -> (Value, Value) {
        let patch = patch(node, wanted, false, Own::default()).unwrap();
        let metadata = &patch["metadata"];
        let written = metadata["annotations"][WRITTEN].clone();
        (metadata["labels"].clone(), written)
    }

    #[test]
    fn a_node_is_told_what_it_does_not_say_and_nothing_twice() {
        let wanted = labels([(PRESENT, "true"), (COUNT, "2")]);
        let names = format!("{COUNT},{PRESENT}");
        let (changed, written) = change(&Node::default(), &wanted);
        assert_eq!(changed, json!({ PRESENT: "true", COUNT: "2" }));
        assert_eq!(written, names);
        let told = node(&json!({ PRESENT: "true", COUNT: "2" }), &names);
        assert_eq!(patch(&told, &wanted, false, Own::default()), None);
        // Somebody deleted one.
        let (changed, _) = change(&node(&json!({ PRESENT: "true" }), &names), &wanted);
        assert_eq!(changed, json!({ COUNT: "2" }));
    }

    #[test]
    fn of_what_is_no_more_only_what_the_agent_wrote_is_taken_away() {
        let both = node(
            &json!({ PRESENT: "true", COUNT: "2", "pool": "gpu" }),
            COUNT,
        );
        let (changed, written) = change(&both, &labels([]));
        assert_eq!(changed, json!({ COUNT: null }));
        assert!(written.is_null());
        let others = json!({ PRESENT: "true" });
        let others = serde_json::from_value(json!({ "metadata": { "labels": others } })).unwrap();
        let (changed, written) = change(&others, &labels([(PRESENT, "true")]));
        assert_eq!((changed, written), (json!({}), Value::Null));
    }

    #[test]
    fn where_feature_discovery_tells_its_names_are_left_alone() {
        let theirs = json!({ FEATURE_DISCOVERY: "1", PRESENT: "true", COUNT: "16", HEALTHY: "1" });
        let names = format!("{PRESENT},{COUNT},{HEALTHY}");
        let wanted = labels([(COUNT, "8"), (HEALTHY, "8")]);
        let (changed, written) = change(&node(&theirs, &names), &wanted);
        assert_eq!(changed, json!({ HEALTHY: "8" }));
        assert_eq!(written, HEALTHY);
    }

    #[test]
    fn whose_certificates_the_kubelet_has_is_told_when_it_is_known_and_differs() {
        let told = node(&json!({}), "");
        let told = |pin: Option<&str>| {
            let mut node = told.clone();
            let annotations = node.metadata.annotations.get_or_insert_default();
            annotations.remove(WRITTEN);
            annotations.extend(pin.map(|pin| (NODE_AUTHORITY.to_owned(), pin.to_owned())));
            node
        };
        let change = |before, authority| {
            let own = Own {
                authority,
                ..Own::default()
            };
            patch(&told(before), &labels([]), false, own)
        };
        for before in [None, Some("sha256:a")] {
            let patch = change(before, Some(("sha256:b", true))).unwrap();
            let only = json!({ NODE_AUTHORITY: "sha256:b" });
            assert_eq!(patch["metadata"]["annotations"], only);
        }
        assert_eq!(change(Some("sha256:b"), Some(("sha256:b", true))), None);
        assert_eq!(change(Some("sha256:a"), None), None);
        // It went back to a former state, and says what is not so any more; of another one it says nothing wrong.
        let patch = change(Some("sha256:b"), Some(("sha256:b", false))).unwrap();
        let only = json!({ NODE_AUTHORITY: null });
        assert_eq!(patch["metadata"]["annotations"], only);
        assert_eq!(change(Some("sha256:a"), Some(("sha256:b", false))), None);
    }

    #[test]
    fn what_the_agent_does_for_the_tenant_is_said_and_taken_back() {
        let change = |before: Value, listener, tunnel| {
            let mut node = node(&before, "");
            node.metadata.annotations.as_mut().unwrap().remove(WRITTEN);
            let own = Own {
                done: Done { listener, tunnel },
                ..Own::default()
            };
            patch(&node, &BTreeMap::new(), false, own)
                .map(|patch| patch["metadata"]["labels"].clone())
        };
        let both = json!({ LISTENER: OF_HOST, TUNNEL: OF_HOST });
        assert_eq!(change(json!({}), true, Some(true)), Some(both.clone()));
        let another = json!({ LISTENER: "pod" });
        let listener = json!({ LISTENER: OF_HOST });
        assert_eq!(change(another, true, Some(false)), Some(listener.clone()));
        assert_eq!(change(both.clone(), true, Some(true)), None);
        // It registered with it, or did not, and is about to connect.
        assert_eq!(change(both.clone(), true, None), None);
        assert_eq!(change(listener.clone(), true, None), None);
        let tunnel = json!({ TUNNEL: null });
        assert_eq!(change(both, true, Some(false)), Some(tunnel));
        assert_eq!(change(json!({}), false, Some(false)), None);
    }

    #[test]
    fn what_is_only_not_known_now_is_kept() {
        let product = gpu::LABELS[3];
        let told = json!({ PRESENT: "true", COUNT: "2", HEALTHY: "2", product: "NVIDIA-H200" });
        let names = format!("{COUNT},{PRESENT},{product},{HEALTHY}");
        let wanted = labels([(PRESENT, "true"), (COUNT, "2"), (HEALTHY, "0")]);
        let silent = patch(&node(&told, &names), &wanted, true, Own::default()).unwrap();
        let only = json!({ "labels": { HEALTHY: "0" }, "annotations": {} });
        assert_eq!(silent["metadata"], only);
        let (changed, _) = change(&node(&told, &names), &wanted);
        assert_eq!(changed, json!({ HEALTHY: "0", product: null }));
    }
}
