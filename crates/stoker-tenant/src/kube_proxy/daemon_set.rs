//! The `DaemonSet` `kube-proxy`.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, HostPathVolumeSource,
    ObjectFieldSelector, PodSpec, PodTemplateSpec, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{CONFIG_KEY, NAME};
use crate::component::KUBE_PROXY;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};

const SELECTOR: &[(&str, &str)] = &[("k8s-app", NAME)];
const CONFIG_DIRECTORY: &str = "/var/lib/kube-proxy";
const LOCK: (&str, &str) = ("xtables-lock", "/run/xtables.lock");
const MODULES: (&str, &str) = ("lib-modules", "/lib/modules");

pub(super) fn build(image: String) -> DaemonSet {
    DaemonSet {
        metadata: with_labels(namespaced(KUBE_PROXY, KUBE_SYSTEM, NAME), SELECTOR),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(string_map(SELECTOR)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(string_map(SELECTOR)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(image)),
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                ..DaemonSetUpdateStrategy::default()
            }),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

fn pod(image: String) -> PodSpec {
    PodSpec {
        containers: vec![container(image)],
        host_network: Some(true),
        node_selector: Some(string_map(&[("kubernetes.io/os", "linux")])),
        priority_class_name: Some("system-node-critical".to_owned()),
        service_account_name: Some(NAME.to_owned()),
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
        volumes: Some(vec![
            Volume {
                name: NAME.to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: NAME.to_owned(),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            host_path(LOCK, Some("FileOrCreate")),
            host_path(MODULES, None),
        ]),
        ..PodSpec::default()
    }
}

fn container(image: String) -> Container {
    Container {
        name: NAME.to_owned(),
        image: Some(image),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![
            "/usr/local/bin/kube-proxy".to_owned(),
            format!("--config={CONFIG_DIRECTORY}/{CONFIG_KEY}"),
            "--hostname-override=$(NODE_NAME)".to_owned(),
        ]),
        env: Some(vec![EnvVar {
            name: "NODE_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: "spec.nodeName".to_owned(),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount((NAME, CONFIG_DIRECTORY), None),
            mount(LOCK, None),
            mount(MODULES, Some(true)),
        ]),
        ..Container::default()
    }
}

fn mount((name, path): (&str, &str), read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    }
}

fn host_path((name, path): (&str, &str), type_: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: type_.map(str::to_owned),
        }),
        ..Volume::default()
    }
}
