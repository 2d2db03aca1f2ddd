//! What the machine has, told as labels of its Node; and which agent runs on it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use stoker_node::gpu;

use super::access::{Who, client};
use super::join::authorities;
use super::paths::Membership;

/// Annotation: the agent's version.
const AGENT: &str = "stoker.dev/node-agent";

/// The labels that were told last.
pub(crate) type Told = Option<BTreeMap<&'static str, String>>;

/// Looks once, and tells what is new.
pub(crate) async fn once(member: &Membership, told: &mut Told) -> Result<()> {
    let labels = gpu::labels(&gpu::look(Path::new("/")).await);
    if told.as_ref() == Some(&labels) {
        return Ok(());
    }
    let client = client(&member.server, Some(&authorities()?), &Who::this_node())?;
    let nodes: Api<Node> = Api::all(client);
    let patch = Patch::Merge(patch(&labels));
    nodes
        .patch(&member.node, &PatchParams::default(), &patch)
        .await
        .context("writing labels of the Node")?;
    *told = Some(labels);
    Ok(())
}

/// What is no longer so is taken away.
fn patch(labels: &BTreeMap<&'static str, String>) -> Value {
    let known = gpu::LABELS.into_iter();
    let all: BTreeMap<_, _> = known.map(|label| (label, labels.get(label))).collect();
    json!({ "metadata": {
        "labels": all,
        "annotations": { AGENT: env!("CARGO_PKG_VERSION") },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_has_no_more_is_taken_away() {
        let some = [(gpu::LABELS[0], "true".to_owned())].into();
        let patch = patch(&some);
        let labels = patch["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels.len(), gpu::LABELS.len());
        assert_eq!(labels[gpu::LABELS[0]], "true");
        assert!(labels[gpu::LABELS[1]].is_null());
    }
}
