//! `stoker-node run` on machines that have it: what it is asked for, and that pods of add-ons stay away where it does as much.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
};
use stoker_api::host_agent::Orders;
use stoker_api::labels::OF_HOST;
use stoker_api::tenant::Tenant;

use crate::{Access, konnectivity, node_listener};

/// Everything that `tenant` has for nodes, and that the agent can do.
pub(crate) fn orders(tenant: &Tenant, access: &Access) -> Orders {
    let listeners = access.listeners.as_ref();
    let konnectivity = tenant.addons.konnectivity.as_ref();
    Orders {
        listener: listeners.map(|listeners| node_listener::order(listeners, access)),
        tunnel: konnectivity.and_then(|asked| konnectivity::order(asked, access)),
    }
}

/// No pod on Nodes with this label of the host's agent.
pub(crate) fn not_beside(label: &str) -> Affinity {
    let requirement = NodeSelectorRequirement {
        key: label.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![OF_HOST.to_owned()]),
    };
    let term = NodeSelectorTerm {
        match_expressions: Some(vec![requirement]),
        ..NodeSelectorTerm::default()
    };
    let required = NodeSelector {
        node_selector_terms: vec![term],
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}
