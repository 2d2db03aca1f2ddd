//! What a cached object tells a pass, apart from numbers that nobody waits for: a Deployment's status is written four times
//! while one pod starts.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

use super::lean::Kind;
use crate::tenant::rollout::is_complete;
use crate::tenant::status::stuck::overdue;
use crate::tenant::trouble::Trouble;

/// An object that passes go by as the cache has it.
pub(super) trait Standing: Kind {
    /// What a pass is due for when it changes.
    type Word: PartialEq + Send;
    /// What is only counted.
    type Count: Default + PartialEq + Send;

    fn standing(&self) -> (Self::Word, Self::Count);

    /// What the pass knows that has just made it.
    fn made(&self) -> Self::Word;
}

/// Which version: passes that need not write it read the cache, which may have lagged behind what was written.
impl Standing for Service {
    type Word = Option<String>;
    type Count = ();

    fn standing(&self) -> (Self::Word, Self::Count) {
        (self.resource_version(), ())
    }

    fn made(&self) -> Self::Word {
        self.resource_version()
    }
}

/// Of a Deployment: what is wrong with it, how many pods are ready, and of which generation they are all there and ready.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Word {
    refused: Option<Trouble>,
    is_overdue: bool,
    ready: i32,
    complete: Option<i64>,
}

impl Standing for Deployment {
    type Word = Word;
    /// Pods, and those of the latest template.
    type Count = [i32; 2];

    fn standing(&self) -> (Self::Word, Self::Count) {
        let status = self.status.as_ref();
        let of = |count: Option<i32>| count.unwrap_or_default();
        let wanted = of(self.spec.as_ref().and_then(|spec| spec.replicas));
        let all = of(status.and_then(|status| status.replicas));
        let generation = self.metadata.generation.unwrap_or_default();
        let is_complete = is_complete(self, generation) && all == wanted;
        let word = Word {
            refused: Trouble::of_deployment(self),
            is_overdue: overdue(self).is_some(),
            ready: of(status.and_then(|status| status.ready_replicas)),
            complete: is_complete.then_some(generation),
        };
        let updated = of(status.and_then(|status| status.updated_replicas));
        (word, [all, updated])
    }

    fn made(&self) -> Self::Word {
        Word::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn standing(status: &Value) -> (Word, [i32; 2]) {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "generation": 2 },
            "spec": { "replicas": 1, "selector": {}, "template": {} },
            "status": status,
        }))
        .unwrap();
        deployment.standing()
    }

    #[test]
    fn a_pod_that_is_made_is_a_number_and_one_that_is_ready_or_refused_is_news() {
        let conditions = |progressing: &str, failure: &str| {
            json!([
                { "type": "Available", "status": "False", "lastUpdateTime": "2026-01-01T00:00:00Z" },
                { "type": "Progressing", "status": progressing, "reason": "ProgressDeadlineExceeded" },
                { "type": "ReplicaFailure", "status": failure, "message": "no room" },
            ])
        };
        let (nothing, none) = standing(&json!({}));
        assert!(nothing == Word::default() && none == [0, 0]);
        let observed =
            json!({ "observedGeneration": 2, "conditions": conditions("True", "False") });
        assert_eq!(standing(&observed), (Word::default(), [0, 0]));
        let made = json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1 });
        assert_eq!(standing(&made), (Word::default(), [1, 1]));
        let mut ready = made.clone();
        ready["readyReplicas"] = json!(1);
        let complete = Word {
            ready: 1,
            complete: Some(2),
            ..Word::default()
        };
        assert_eq!(standing(&ready), (complete, [1, 1]));
        for conditions in [conditions("False", "False"), conditions("True", "True")] {
            let failed = json!({ "observedGeneration": 2, "conditions": conditions });
            assert_ne!(standing(&failed).0, Word::default());
        }
    }
}
