//! The three containers.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, Probe, ResourceRequirements, SecurityContext,
    VolumeMount,
};
use stoker_api::arguments::Component;
use stoker_api::restricted::CAPABILITY;
use stoker_api::tenant::{API_SERVER_PORT, API_SERVER_PORT_NAME, Tenant};
use stoker_api::v1alpha1::{ContainerSecurity, Resources, VolumeMounts};

use super::size::{self, Requests};
use super::{additional, configuration, files, flags, probe, security};
use crate::Inputs;

const CONTROLLER_MANAGER_PORT: i32 = 10257;
const SCHEDULER_PORT: i32 = 10259;

/// The three containers.
pub(super) fn containers(inputs: &Inputs<'_>) -> Vec<Container> {
    let tenant = inputs.tenant;
    vec![
        api_server(inputs),
        controller_manager(tenant),
        scheduler(tenant),
    ]
}

/// Started and ready by `/readyz`. Alive by `/livez` without its look at etcd: restarting API
/// servers mends no pool, and all of them starting at once would hinder its return.
fn api_server(inputs: &Inputs<'_>) -> Container {
    let port = i32::from(API_SERVER_PORT);
    let tenant = inputs.tenant;
    let component = Component::ApiServer;
    let asked = &tenant.deployment;
    let security = asked.container_security_contexts.api_server.as_ref();
    Container {
        args: Some(flags::api_server(inputs)),
        ports: Some(vec![ContainerPort {
            name: Some(API_SERVER_PORT_NAME.to_owned()),
            container_port: port,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(startup(tenant, component, probe::startup(port, "/readyz"))),
        readiness_probe: Some(readiness(
            tenant,
            component,
            probe::readiness(port, "/readyz"),
        )),
        liveness_probe: Some(liveness(
            tenant,
            component,
            probe::liveness(port, "/livez?exclude=etcd"),
        )),
        resources: Some(requests(
            asked.resources.api_server.as_ref(),
            size::requests(tenant.size, component),
        )),
        security_context: Some(with_capability(own_security(security))),
        volume_mounts: Some(
            mounts(
                tenant,
                files::API_SERVER,
                &asked.additional_volume_mounts.api_server,
            )
            .into_iter()
            .chain(configuration::mounts(tenant))
            .collect(),
        ),
        ..stock(tenant, component)
    }
}

fn controller_manager(tenant: &Tenant) -> Container {
    let asked = &tenant.deployment;
    let security = asked
        .container_security_contexts
        .controller_manager
        .as_ref();
    Container {
        args: Some(flags::controller_manager(tenant)),
        resources: Some(requests(
            asked.resources.controller_manager.as_ref(),
            size::requests(tenant.size, Component::ControllerManager),
        )),
        security_context: Some(own_security(security)),
        volume_mounts: Some(mounts(
            tenant,
            files::CONTROLLER_MANAGER,
            &asked.additional_volume_mounts.controller_manager,
        )),
        ..background(
            tenant,
            Component::ControllerManager,
            CONTROLLER_MANAGER_PORT,
        )
    }
}

fn scheduler(tenant: &Tenant) -> Container {
    let asked = &tenant.deployment;
    let security = asked.container_security_contexts.scheduler.as_ref();
    Container {
        args: Some(flags::scheduler(tenant)),
        resources: Some(requests(
            asked.resources.scheduler.as_ref(),
            size::requests(tenant.size, Component::Scheduler),
        )),
        security_context: Some(own_security(security)),
        volume_mounts: Some(mounts(
            tenant,
            files::SCHEDULER,
            &asked.additional_volume_mounts.scheduler,
        )),
        ..background(tenant, Component::Scheduler, SCHEDULER_PORT)
    }
}

/// A component that serves nobody: unless one is asked for, it has no readiness probe, because its
/// bad health must not take the API server beside it out of the Service.
fn background(tenant: &Tenant, component: Component, port: i32) -> Container {
    const HEALTH: &str = "/healthz";
    let probes = tenant.deployment.probes.of(component);
    let asked = probes.readiness.is_some();
    Container {
        startup_probe: Some(startup(tenant, component, probe::startup(port, HEALTH))),
        readiness_probe: asked
            .then(|| readiness(tenant, component, probe::readiness(port, HEALTH))),
        liveness_probe: Some(liveness(tenant, component, probe::liveness(port, HEALTH))),
        ..stock(tenant, component)
    }
}

fn stock(tenant: &Tenant, component: Component) -> Container {
    let images = &tenant.deployment.registry_settings;
    let image = match component {
        Component::ApiServer => &images.api_server_image,
        Component::ControllerManager => &images.controller_manager_image,
        Component::Scheduler => &images.scheduler_image,
    };
    let registry = images.registry.trim_end_matches('/');
    let tag = format!("{}{}", tenant.version, images.tag_suffix);
    Container {
        name: component.binary().to_owned(),
        image: Some(format!("{registry}/{image}:{tag}")),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![component.binary().to_owned()]),
        ..Container::default()
    }
}

fn mounts(tenant: &Tenant, volume: &str, asked: &VolumeMounts) -> Vec<VolumeMount> {
    let mut mounts = vec![files::mount(volume)];
    mounts.extend(additional::mounts(&tenant.deployment, &asked.0));
    mounts
}

fn startup(tenant: &Tenant, component: Component, probe: Probe) -> Probe {
    let asked = &tenant.deployment.probes;
    probe::timed(probe, [asked.startup, asked.of(component).startup])
}

fn readiness(tenant: &Tenant, component: Component, probe: Probe) -> Probe {
    let asked = &tenant.deployment.probes;
    probe::timed(probe, [asked.readiness, asked.of(component).readiness])
}

fn liveness(tenant: &Tenant, component: Component, probe: Probe) -> Probe {
    let asked = &tenant.deployment.probes;
    probe::timed(probe, [asked.liveness, asked.of(component).liveness])
}

fn requests(asked: Option<&Resources>, (cpu, memory): Requests) -> ResourceRequirements {
    Resources::or_requests(asked, cpu, memory)
}

/// A stock component writes nothing to its image.
fn own_security(asked: Option<&ContainerSecurity>) -> SecurityContext {
    let mut security = security::container(asked.map(|asked| &asked.0));
    security.read_only_root_filesystem.get_or_insert(true);
    security
}

/// kube-apiserver's upstream binary carries the file capability `cap_net_bind_service=+ep`; the
/// kernel refuses to run it unless that capability is in the container's bounding set. Nothing is
/// gained by it: with `allowPrivilegeEscalation: false` the process does not receive it.
fn with_capability(security: SecurityContext) -> SecurityContext {
    SecurityContext {
        capabilities: Some(Capabilities {
            add: Some(vec![CAPABILITY.to_owned()]),
            drop: security.capabilities.and_then(|own| own.drop),
        }),
        ..security
    }
}
