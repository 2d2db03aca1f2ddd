//! What a tenant asks of `stoker-node run` on its machines: in the `ConfigMap` `kube-public/cluster-info`, which the agent reads anyway
//! for the tenant's authorities.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::{LISTENER, TUNNEL};

/// Key of `cluster-info` beside `kubeconfig`; JSON.
pub const KEY: &str = "stoker-node";

/// What is asked; an agent does what it knows of it, and says by labels of its Node that it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Be the API server at addresses of the node, for pods (`spec.addons.nodeListener`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerOrder>,
    /// Keep a way open by which API servers reach the node (`spec.addons.konnectivity`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelOrder>,
}

/// What the listener is to be. A field that an agent does not know is an error to it: the add-on's pod stays then.
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
    /// The only networks that it opens streams to, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// Networks that it opens no streams to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<IpNet>,
}

impl Orders {
    /// Nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Labels of a Node whose agent does all of this.
    #[must_use]
    pub fn labels(&self) -> Vec<&'static str> {
        let listener = self.listener.as_ref().map(|_| LISTENER);
        let tunnel = self.tunnel.as_ref().map(|_| TUNNEL);
        listener.into_iter().chain(tunnel).collect()
    }

    /// What is to be done: what is not known yet, or not known any more, is as it was `before`.
    #[must_use]
    pub fn or_as(mut self, before: &Self) -> Self {
        if self
            .listener
            .as_ref()
            .is_some_and(|order| order.servers.is_empty())
        {
            self.listener.clone_from(&before.listener);
        }
        if self
            .tunnel
            .as_ref()
            .is_some_and(|order| order.server.is_none())
        {
            self.tunnel.clone_from(&before.tunnel);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(text: &str) -> Result<Orders, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_an_agent_does_not_know_is_left_to_the_add_on_and_not_taken_for_less() {
        assert_eq!(orders(r#"{ "another": {} }"#).unwrap(), Orders::default());
        for text in [
            r#"{ "listener": { "listen": [], "servers": ["a:6443"], "only": "pods" } }"#,
            r#"{ "tunnel": { "server": "a:8132", "ports": [10250] } }"#,
        ] {
            assert!(orders(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_now_is_as_it_was_and_what_is_not_asked_is_not() {
        let known = r#"{ "listener": { "listen": ["192.0.0.64:6443"], "servers": ["a:6443"] }, "tunnel": { "server": "a:8132" } }"#;
        let known = orders(known).unwrap();
        let unknown = r#"{ "listener": { "listen": ["192.0.0.64:6443"], "servers": [] }, "tunnel": { "server": null } }"#;
        let unknown = orders(unknown).unwrap();
        assert_eq!(unknown.clone().or_as(&known), known);
        assert_eq!(unknown.or_as(&Orders::default()), Orders::default());
        assert_eq!(Orders::default().or_as(&known), Orders::default());
        assert_eq!(known.labels().len(), 2);
    }
}
