//! `spec.kubernetes.apiPriority`: whom the API server serves first.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::LABEL;

/// Keeps clients that work by themselves from crowding out people and nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApiPriority {
    /// How tightly their requests are bounded.
    pub preset: PriorityPreset,
    /// Namespaces whose service accounts these clients are. Left out, all but `kube-system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(format!("self.all(n, n != 'kube-system' && n.matches('{LABEL}'))"))
            .message("namespaces: names of namespaces, not kube-system, whose controllers must go on")
    )]
    pub namespaces: Vec<String>,
}

/// Presets of API priority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityPreset {
    /// Many that want answers soon, such as AI agents: short queues, fair between accounts.
    Agents,
    /// Few that can wait, such as batch jobs: a smaller share and long queues.
    Batch,
}
