//! The listener on every node (`spec.addons.nodeListener`), to which the `kubernetes` Endpoints lead.
//!
//! It needs no rights in the cluster and no network of its own: it gives the node an address, and leads on what comes there.
//! On machines with `stoker-node run` that does so, as [`order`] says; elsewhere the pods of a `DaemonSet` do.

use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::host_agent::ListenerOrder;
use stoker_api::labels::LISTENER;

use crate::component::NODE_LISTENER;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};
use crate::{Access, NodeListeners, TenantObjects};
use crate::{host_agent, node_container};

/// Name of the `DaemonSet`, in `kube-system`.
pub const NODE_LISTENER_NAME: &str = "stoker-node-listener";
const NAME: &str = NODE_LISTENER_NAME;
const SELECTOR: &[(&str, &str)] = &[("k8s-app", NAME)];
/// Open connections live on for so long when a node's listener is replaced; watches are renewed by their clients in
/// that time.
const DRAIN_SECONDS: i64 = 600;

/// For `stoker-node run`.
pub(crate) fn order(listeners: &NodeListeners, access: &Access) -> ListenerOrder {
    let at = |address: &_| SocketAddr::new(*address, access.direct_port);
    ListenerOrder {
        listen: access.addresses.iter().map(at).collect(),
        servers: listeners.servers.clone(),
        name: listeners.name.clone(),
    }
}

/// None while nothing is known that it could lead to: what is there is to stay then.
pub(crate) fn add(objects: &mut TenantObjects, listeners: &NodeListeners, access: &Access) {
    if listeners.servers.is_empty() {
        return;
    }
    let labels = Some(string_map(SELECTOR));
    objects.daemon_sets.push(DaemonSet {
        metadata: with_labels(namespaced(NODE_LISTENER, KUBE_SYSTEM, NAME), SELECTOR),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: labels.clone(),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels,
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(listeners, access)),
            },
            update_strategy: Some(successor_first("10%")),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    });
}

/// A node's next pod is there before its last one ends. Both listeners may listen at the same address; an agent of the tunnel lets
/// open streams run on for a while, in which it takes no new ones. On as many nodes at a time as `share` says.
pub(crate) fn successor_first(share: &str) -> DaemonSetUpdateStrategy {
    DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_surge: Some(IntOrString::String(share.to_owned())),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn pod(listeners: &NodeListeners, access: &Access) -> PodSpec {
    PodSpec {
        affinity: Some(host_agent::not_beside(LISTENER)),
        containers: vec![container(listeners, access)],
        // The tenant's name is looked up as nodes look it up, also while there is no cluster DNS.
        dns_policy: Some("Default".to_owned()),
        host_network: Some(true),
        node_selector: Some(string_map(&[("kubernetes.io/os", "linux")])),
        priority_class_name: Some("system-node-critical".to_owned()),
        automount_service_account_token: Some(false),
        termination_grace_period_seconds: Some(DRAIN_SECONDS + 30),
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
        ..PodSpec::default()
    }
}

/// As root, since no other user keeps a capability. Ports are not declared: in the node's network they would keep its
/// successor from the node.
fn container(listeners: &NodeListeners, access: &Access) -> Container {
    let order = order(listeners, access);
    let listen: Vec<String> = order.listen.iter().map(SocketAddr::to_string).collect();
    let mut args = vec![
        "listener".to_owned(),
        format!("--listen={}", listen.join(",")),
        format!("--server={}", order.servers.join(",")),
        format!("--drain-seconds={DRAIN_SECONDS}"),
    ];
    args.extend(order.name.iter().map(|name| format!("--name={name}")));
    let image = listeners.image.clone();
    node_container::container(NAME, image, args, None, Some("NET_ADMIN"))
}
