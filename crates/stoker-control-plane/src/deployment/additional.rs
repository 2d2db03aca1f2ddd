//! Containers, volumes and mounts that people add, within the restricted profile and away from the
//! control plane's own keys.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    ProjectedVolumeSource, ResourceRequirements, TCPSocketAction, Volume, VolumeMount,
    VolumeProjection,
};
use stoker_api::v1alpha1::ControlPlaneDeployment;

use super::security;

/// Containers beside the three components.
pub(super) fn containers(wanted: &ControlPlaneDeployment) -> Vec<Container> {
    let containers = wanted.additional_containers.0.iter();
    containers
        .map(|asked| Container {
            restart_policy: None,
            ..restricted(wanted, asked)
        })
        .collect()
}

/// Containers before them, or beside them from the start.
pub(super) fn init_containers(wanted: &ControlPlaneDeployment) -> Vec<Container> {
    let containers = wanted.additional_init_containers.0.iter();
    containers.map(|asked| restricted(wanted, asked)).collect()
}

/// Volumes without files, devices and tokens of the management cluster.
pub(super) fn volumes(wanted: &ControlPlaneDeployment) -> Vec<Volume> {
    let volumes = wanted.additional_volumes.0.iter().cloned();
    volumes
        .map(|asked| Volume {
            name: asked.name,
            config_map: asked.config_map,
            empty_dir: asked.empty_dir,
            projected: asked.projected.map(without_tokens),
            secret: asked.secret,
            ..Volume::default()
        })
        .collect()
}

/// Those of `mounts` that name an additional volume.
pub(super) fn mounts(wanted: &ControlPlaneDeployment, mounts: &[VolumeMount]) -> Vec<VolumeMount> {
    let volumes = &wanted.additional_volumes.0;
    let known = |mount: &&VolumeMount| volumes.iter().any(|volume| volume.name == mount.name);
    mounts.iter().filter(known).cloned().collect()
}

fn without_tokens(asked: ProjectedVolumeSource) -> ProjectedVolumeSource {
    let sources = asked.sources.into_iter().flatten();
    ProjectedVolumeSource {
        default_mode: asked.default_mode,
        sources: Some(
            sources
                .map(|source| VolumeProjection {
                    config_map: source.config_map,
                    downward_api: source.downward_api,
                    secret: source.secret,
                    ..VolumeProjection::default()
                })
                .collect(),
        ),
    }
}

fn restricted(wanted: &ControlPlaneDeployment, asked: &Container) -> Container {
    let asked = asked.clone();
    Container {
        security_context: Some(security::container(asked.security_context.as_ref())),
        volume_mounts: asked.volume_mounts.map(|list| mounts(wanted, &list)),
        ports: asked
            .ports
            .map(|list| list.into_iter().map(pod_port).collect()),
        lifecycle: asked.lifecycle.map(|lifecycle| Lifecycle {
            post_start: lifecycle.post_start.map(hook),
            pre_stop: lifecycle.pre_stop.map(hook),
            ..lifecycle
        }),
        liveness_probe: asked.liveness_probe.map(probe),
        readiness_probe: asked.readiness_probe.map(probe),
        startup_probe: asked.startup_probe.map(probe),
        resources: asked.resources.map(|resources| ResourceRequirements {
            claims: None,
            ..resources
        }),
        volume_devices: None,
        ..asked
    }
}

/// A port of the pod, never of the node.
fn pod_port(port: ContainerPort) -> ContainerPort {
    ContainerPort {
        host_ip: None,
        host_port: None,
        ..port
    }
}

/// The kubelet asks the pod itself, never another host.
fn probe(probe: Probe) -> Probe {
    Probe {
        http_get: probe.http_get.map(own_http),
        tcp_socket: probe.tcp_socket.map(own_tcp),
        ..probe
    }
}

fn hook(hook: LifecycleHandler) -> LifecycleHandler {
    LifecycleHandler {
        http_get: hook.http_get.map(own_http),
        tcp_socket: hook.tcp_socket.map(own_tcp),
        ..hook
    }
}

fn own_http(action: HTTPGetAction) -> HTTPGetAction {
    HTTPGetAction {
        host: None,
        ..action
    }
}

fn own_tcp(action: TCPSocketAction) -> TCPSocketAction {
    TCPSocketAction {
        host: None,
        ..action
    }
}
