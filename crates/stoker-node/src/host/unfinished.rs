//! A `leave` that was begun and has not ended, as the agent sees it that still runs.

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use stoker_api::labels::LEFT;

use super::goodbye::is_cordoned;
use super::paths::{Leaving, Membership};

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Unfinished(Option<Leaving>);

impl Unfinished {
    /// Says it when it is new. Whether it is an old one: what `leave` does right after it has written that down is done by then.
    pub(super) fn is_old(&mut self, now: Option<Leaving>) -> bool {
        let is_same = self.0 == now;
        if now.is_some() && !is_same {
            tracing::warn!(
                "`stoker-node leave` has begun and the Node may be cordoned: run that to its end, or `stoker-node join` to stay"
            );
        }
        self.0 = now;
        is_same && self.0.is_some()
    }

    /// Forgets it, if somebody has taken back what it did: a later cordon is not its own.
    pub(super) fn forget_if_back(&mut self, node: &Node) -> Result<()> {
        if !is_back(node) {
            return Ok(());
        }
        if let Some(member) = Membership::read()?
            && member.leaving == self.0
        {
            Membership {
                leaving: None,
                ..member
            }
            .write()?;
            self.0 = None;
            tracing::info!("the Node takes pods again: the `leave` that was begun is forgotten");
        }
        Ok(())
    }
}

fn is_back(node: &Node) -> bool {
    !is_cordoned(node) && !node.annotations().contains_key(LEFT)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_was_seen_before_is_old() {
        let mut unfinished = Unfinished::default();
        for (now, is_old) in [
            (None, false),
            (Some("a"), false),
            (Some("a"), true),
            (Some("b"), false),
            (None, false),
            (Some("b"), false),
        ] {
            assert_eq!(
                unfinished.is_old(now.map(Leaving::cordoned)),
                is_old,
                "{now:?}"
            );
        }
    }

    #[test]
    fn a_node_is_back_when_nothing_of_leave_is_left_on_it() {
        let node = |annotations: Value, spec: Value| {
            let object = json!({ "metadata": { "annotations": annotations }, "spec": spec });
            is_back(&serde_json::from_value(object).unwrap())
        };
        let cordoned = json!({ "unschedulable": true });
        assert!(node(json!({}), json!({})));
        assert!(node(json!({}), json!({ "unschedulable": false })));
        assert!(!node(json!({}), cordoned));
        assert!(!node(json!({ LEFT: "2026-05-01T00:00:00Z" }), json!({})));
    }
}
