//! What a tenant asks of `stoker-node run` on its machines: in the `ConfigMap` `kube-public/cluster-info`, which the agent reads anyway
//! for the tenant's authorities, and so may everybody.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Key of `cluster-info` beside `kubeconfig`; JSON.
pub const KEY: &str = "stoker-node";

/// What is asked. An agent reads each part by itself, does what it knows, and says by labels of its Node that it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Be the API server at addresses of the node, for pods (`spec.addons.nodeListener`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerOrder>,
    /// Keep a way open by which API servers reach the node (`spec.addons.konnectivity`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelOrder>,
}

/// What the listener is to be. A field that an agent does not know is an error to it: the add-on's pod does it then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerOrder {
    /// Where it takes connections.
    pub listen: Vec<SocketAddr>,
    /// What it dials, each `host:port`; none while that is not known, which changes nothing.
    pub servers: Vec<String>,
    /// The name that it tells a gateway; none where API servers themselves are dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the tunnel is to be; as with the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelOrder {
    /// What it dials, `host:port`; none while that is not known, which changes nothing.
    pub server: Option<String>,
}

impl Orders {
    /// Nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
