//! The Deployment `coredns`.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction,
    KeyToPath, PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SecurityContext, Toleration, Volume, VolumeMount,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::version::KubernetesVersion;

use super::{METRICS_PORT, NAME, SELECTOR, SERVICE};
use crate::component::CORE_DNS;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};
use crate::release;

const CONFIG_VOLUME: &str = "config-volume";
const LIVENESS: (&str, i32) = ("liveness-probe", 8080);
const READINESS: (&str, i32) = ("readiness-probe", 8181);

pub(super) fn build(image: String, version: KubernetesVersion) -> Deployment {
    Deployment {
        metadata: with_labels(namespaced(CORE_DNS, KUBE_SYSTEM, NAME), SELECTOR),
        spec: Some(DeploymentSpec {
            replicas: Some(2),
            selector: LabelSelector {
                match_labels: Some(string_map(SELECTOR)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(1)),
                    ..RollingUpdateDeployment::default()
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(string_map(SELECTOR)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(image, version)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod(image: String, version: KubernetesVersion) -> PodSpec {
    PodSpec {
        affinity: Some(apart_from_each_other()),
        containers: vec![container(image, version)],
        dns_policy: Some("Default".to_owned()),
        node_selector: Some(string_map(&[("kubernetes.io/os", "linux")])),
        priority_class_name: Some("system-cluster-critical".to_owned()),
        service_account_name: Some(NAME.to_owned()),
        tolerations: Some(vec![
            Toleration {
                key: Some("CriticalAddonsOnly".to_owned()),
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            },
            Toleration {
                effect: Some("NoSchedule".to_owned()),
                key: Some("node-role.kubernetes.io/control-plane".to_owned()),
                ..Toleration::default()
            },
        ]),
        volumes: Some(vec![Volume {
            name: CONFIG_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: NAME.to_owned(),
                items: Some(vec![KeyToPath {
                    key: "Corefile".to_owned(),
                    path: "Corefile".to_owned(),
                    ..KeyToPath::default()
                }]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

fn apart_from_each_other() -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        label_selector: Some(LabelSelector {
                            match_expressions: Some(vec![LabelSelectorRequirement {
                                key: "k8s-app".to_owned(),
                                operator: "In".to_owned(),
                                values: Some(vec![SERVICE.to_owned()]),
                            }]),
                            ..LabelSelector::default()
                        }),
                        topology_key: "kubernetes.io/hostname".to_owned(),
                        ..PodAffinityTerm::default()
                    },
                },
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn container(image: String, version: KubernetesVersion) -> Container {
    let named = release::core_dns_names_probe_ports(version);
    let mut ports = vec![
        port("dns", 53, "UDP"),
        port("dns-tcp", 53, "TCP"),
        port("metrics", METRICS_PORT, "TCP"),
    ];
    if named {
        ports.extend([LIVENESS, READINESS].map(|(name, number)| port(name, number, "TCP")));
    }
    Container {
        name: NAME.to_owned(),
        image: Some(image),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(
            ["-conf", "/etc/coredns/Corefile"]
                .map(str::to_owned)
                .to_vec(),
        ),
        liveness_probe: Some(Probe {
            failure_threshold: Some(5),
            initial_delay_seconds: Some(60),
            success_threshold: Some(1),
            timeout_seconds: Some(5),
            ..probe("/health", LIVENESS, named)
        }),
        ports: Some(ports),
        readiness_probe: Some(probe("/ready", READINESS, named)),
        resources: Some(ResourceRequirements {
            limits: Some([quantity("memory", "170Mi")].into()),
            requests: Some([quantity("cpu", "100m"), quantity("memory", "70Mi")].into()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_BIND_SERVICE".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: CONFIG_VOLUME.to_owned(),
            mount_path: "/etc/coredns".to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn quantity(name: &str, amount: &str) -> (String, Quantity) {
    (name.to_owned(), Quantity(amount.to_owned()))
}

fn port(name: &str, number: i32, protocol: &str) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, (name, number): (&str, i32), named: bool) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: if named {
                IntOrString::String(name.to_owned())
            } else {
                IntOrString::Int(number)
            },
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
