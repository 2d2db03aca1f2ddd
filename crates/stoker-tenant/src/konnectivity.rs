//! The tunnel's end inside the tenant (`spec.addons.konnectivity`): an agent on every node, or some.
//!
//! It needs no rights in the cluster: it shows the node's own certificate, which it reads where the
//! kubelet keeps it. On machines with `stoker-node run` that is the agent, as [`order`] says.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, HostPathVolumeSource,
    KeyToPath, PodSpec, PodTemplateSpec, Probe, ServiceAccount, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::host_agent::TunnelOrder;
use stoker_api::labels::TUNNEL;
use stoker_api::v1alpha1::{AgentMode, Konnectivity, KonnectivityAgent};

use crate::component::KONNECTIVITY;
use crate::host_agent::not_beside;
use crate::node_container;
use crate::node_listener::successor_first;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};
use crate::{Access, TenantObjects, TunnelAgents};

/// Name of the `DaemonSet` or Deployment and of its `ServiceAccount`: the contract's.
pub const NAME: &str = "konnectivity-agent";
const SELECTOR: &[(&str, &str)] = &[("k8s-app", NAME)];
/// Where a kubelet keeps its certificates. Links there are absolute, so the path is the same inside.
const PKI: (&str, &str) = ("kubelet-pki", "/var/lib/kubelet/pki");
/// The tenant's authority, which kube-controller-manager publishes in every namespace.
const CA: (&str, &str) = ("ca", "/etc/stoker");
const PUBLISHED_CA: &str = "kube-root-ca.crt";
/// Where agents in the pod network answer probes and tell their metrics: the port of konnectivity's.
const HEALTH: (&str, i32) = ("health", 8134);
const METRICS_LISTEN: &str = "metrics-listen";
/// Longer than open streams are let run on (`--drain-seconds`).
const GRACE_SECONDS: i64 = 30;

pub(crate) fn add(objects: &mut TenantObjects, asked: &Konnectivity, access: &Access) {
    let agent = &asked.agent;
    // A node port that the cluster has not given yet.
    let Some(agents) = &access.tunnel else {
        return;
    };
    objects.service_accounts.push(ServiceAccount {
        metadata: namespaced(KONNECTIVITY, KUBE_SYSTEM, NAME),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    });
    let metadata = with_labels(namespaced(KONNECTIVITY, KUBE_SYSTEM, NAME), SELECTOR);
    let selector = LabelSelector {
        match_labels: Some(string_map(SELECTOR)),
        ..LabelSelector::default()
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(string_map(SELECTOR)),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(agent, agents)),
    };
    match agent.mode {
        AgentMode::DaemonSet => objects.daemon_sets.push(DaemonSet {
            metadata,
            spec: Some(DaemonSetSpec {
                selector,
                template,
                // All at a time: a node whose next agent does not get through keeps its last one, and no other node waits for it.
                update_strategy: Some(successor_first("100%")),
                ..DaemonSetSpec::default()
            }),
            ..DaemonSet::default()
        }),
        AgentMode::Deployment => objects.deployments.push(Deployment {
            metadata,
            spec: Some(DeploymentSpec {
                replicas: agent.replicas.filter(|replicas| *replicas > 0),
                selector,
                template,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }),
    }
}

/// For `stoker-node run`; none where some agents are asked for, or those of another release, or with flags of their own, which only
/// who may read the add-on's pods is to know.
pub(crate) fn order(asked: &Konnectivity, access: &Access) -> Option<TunnelOrder> {
    let agent = &asked.agent;
    let is_for_hosts =
        agent.mode == AgentMode::DaemonSet && is_ours(agent) && agent.extra_args.is_empty();
    is_for_hosts.then(|| TunnelOrder {
        server: access.tunnel.as_ref().map(|agents| agents.server.clone()),
    })
}

fn pod(agent: &KonnectivityAgent, agents: &TunnelAgents) -> PodSpec {
    PodSpec {
        affinity: (agent.mode == AgentMode::DaemonSet).then(|| not_beside(TUNNEL)),
        containers: vec![container(
            agent,
            &agents.server,
            image(agent, &agents.image),
        )],
        // The tenant's name is looked up as nodes look it up, also while there is no cluster DNS.
        dns_policy: Some("Default".to_owned()),
        host_network: agent.host_network.then_some(true),
        node_selector: Some(string_map(&[("kubernetes.io/os", "linux")])),
        priority_class_name: Some("system-cluster-critical".to_owned()),
        service_account_name: Some(NAME.to_owned()),
        automount_service_account_token: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        tolerations: Some(tolerations(agent)),
        volumes: Some(vec![
            Volume {
                name: PKI.0.to_owned(),
                host_path: Some(HostPathVolumeSource {
                    path: PKI.1.to_owned(),
                    type_: Some("Directory".to_owned()),
                }),
                ..Volume::default()
            },
            Volume {
                name: CA.0.to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: PUBLISHED_CA.to_owned(),
                    items: Some(vec![KeyToPath {
                        key: "ca.crt".to_owned(),
                        path: "ca.crt".to_owned(),
                        ..KeyToPath::default()
                    }]),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
        ]),
        ..PodSpec::default()
    }
}

/// The contract's. Those of a `DaemonSet` pod of a node that is not ready, or full, are added by its controller.
fn tolerations(agent: &KonnectivityAgent) -> Vec<Toleration> {
    let critical = || {
        vec![Toleration {
            key: Some("CriticalAddonsOnly".to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]
    };
    agent
        .tolerations
        .as_ref()
        .map_or_else(critical, |asked| asked.0.clone())
}

/// The operator's, but for what the spec names of it.
fn image(agent: &KonnectivityAgent, node_image: &str) -> String {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (name, tag) = (given(&agent.image), given(&agent.version));
    if name.is_none() && tag.is_none() {
        return node_image.to_owned();
    }
    let unpinned = node_image.split('@').next().unwrap_or_default();
    // A colon in front of a slash is a registry's port.
    let (default_name, default_tag) = unpinned
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .unwrap_or((unpinned, "latest"));
    format!(
        "{}:{}",
        name.as_deref()
            .unwrap_or(default_name)
            .trim_end_matches('/'),
        tag.as_deref().unwrap_or(default_tag)
    )
}

/// As root, since the kubelet's key is root's.
fn container(agent: &KonnectivityAgent, server: &str, image: String) -> Container {
    let mut args = vec![
        "tunnel".to_owned(),
        format!("--server={server}"),
        format!("--server-ca={}/ca.crt", CA.1),
    ];
    args.extend(agent.extra_args.iter().cloned());
    let container = Container {
        volume_mounts: Some(vec![mount(PKI), mount(CA)]),
        ..node_container::container(NAME, image, args, agent.resources.as_ref(), None)
    };
    if answers(agent) {
        with_health(container)
    } else {
        container
    }
}

/// Not in the nodes' own network, where the port is somebody else's, nor an agent of another release, which may not know how.
fn answers(agent: &KonnectivityAgent) -> bool {
    let mut own = agent.extra_args.iter();
    is_ours(agent) && !agent.host_network && !own.any(|own| own.contains(METRICS_LISTEN))
}

/// Whether the agents are of the operator's release.
fn is_ours(agent: &KonnectivityAgent) -> bool {
    let is_given = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    !is_given(&agent.image) && !is_given(&agent.version)
}

/// Ready is who has a connection to an API server: an update waits for it on each node. No probe ends an agent: one that has failed
/// ends by itself, and whoever keeps the port busy must not end the others.
fn with_health(container: Container) -> Container {
    let readiness = Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/readyz".to_owned()),
            port: IntOrString::String(HEALTH.0.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(5),
        ..Probe::default()
    };
    Container {
        env: Some(vec![EnvVar {
            name: "STOKER_TUNNEL_METRICS_LISTEN".to_owned(),
            value: Some(format!("[::]:{}", HEALTH.1)),
            ..EnvVar::default()
        }]),
        ports: Some(vec![ContainerPort {
            name: Some(HEALTH.0.to_owned()),
            container_port: HEALTH.1,
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(readiness),
        ..container
    }
}

fn mount((name, path): (&str, &str)) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
