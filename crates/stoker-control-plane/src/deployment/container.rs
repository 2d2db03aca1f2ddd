//! The three containers.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};

use super::{files, flags, probe};
use crate::{Inputs, SERVICE_PORT_NAME};

const CONTROLLER_MANAGER_PORT: i32 = 10257;
const SCHEDULER_PORT: i32 = 10259;

/// kube-apiserver's upstream binary carries the file capability `cap_net_bind_service=+ep`; the
/// kernel refuses to run it unless that capability is in the container's bounding set. Nothing is
/// gained by it: with `allowPrivilegeEscalation: false` the process does not receive it.
const API_SERVER_CAPABILITY: &str = "NET_BIND_SERVICE";

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
    Container {
        args: Some(flags::api_server(inputs)),
        ports: Some(vec![ContainerPort {
            name: Some(SERVICE_PORT_NAME.to_owned()),
            container_port: port,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe::startup(port, "/readyz")),
        readiness_probe: Some(probe::readiness(port, "/readyz")),
        liveness_probe: Some(probe::liveness(port, "/livez?exclude=etcd")),
        resources: Some(requests("25m", "250Mi")),
        security_context: Some(security(Some(API_SERVER_CAPABILITY))),
        ..component(inputs.tenant, "kube-apiserver", files::API_SERVER)
    }
}

fn controller_manager(tenant: &Tenant) -> Container {
    Container {
        args: Some(flags::controller_manager(tenant)),
        resources: Some(requests("10m", "85Mi")),
        ..background(
            tenant,
            "kube-controller-manager",
            files::CONTROLLER_MANAGER,
            CONTROLLER_MANAGER_PORT,
        )
    }
}

fn scheduler(tenant: &Tenant) -> Container {
    Container {
        args: Some(flags::scheduler()),
        resources: Some(requests("5m", "55Mi")),
        ..background(tenant, "kube-scheduler", files::SCHEDULER, SCHEDULER_PORT)
    }
}

/// A component that serves nobody: it has no readiness probe, because its bad health must not take
/// the API server beside it out of the Service.
fn background(tenant: &Tenant, name: &str, volume: &str, port: i32) -> Container {
    Container {
        startup_probe: Some(probe::startup(port, "/healthz")),
        liveness_probe: Some(probe::liveness(port, "/healthz")),
        security_context: Some(security(None)),
        ..component(tenant, name, volume)
    }
}

fn component(tenant: &Tenant, name: &str, volume: &str) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(format!("registry.k8s.io/{name}:{}", tenant.version)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![name.to_owned()]),
        volume_mounts: Some(vec![files::mount(volume)]),
        ..Container::default()
    }
}

/// Memory as measured on an idle tenant (PSS 235, 82 and 52 MB); little CPU, so that many idle
/// tenants fit a node. No limits: an API server that is throttled or killed under load takes its
/// tenant with it.
fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(
            [("cpu", cpu), ("memory", memory)]
                .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .into(),
        ),
        ..ResourceRequirements::default()
    }
}

fn security(capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: capability.map(|name| vec![name.to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}
