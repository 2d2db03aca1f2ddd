//! The Deployment of a control plane: one pod with the three stock components and the warden.

mod additional;
mod arguments;
mod checksum;
mod configuration;
mod container;
mod files;
mod flags;
mod probe;
mod scheduling;
mod security;
mod size;
mod warden;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use stoker_api::v1alpha1::{Strategy, StrategyType};

use crate::metadata::{CONTROL_PLANE, metadata, object_labels, pod_selector, with_additional};
use crate::{Inputs, Names};

pub use checksum::ANNOTATION as RESTART_CHECKSUM;
pub(crate) use files::DIRECTORY as CONFIG_DIRECTORY;
pub(crate) use warden::GUARD_PORT;

/// How long a terminating API server keeps serving while load balancers and kube-proxies stop
/// sending to it (`--shutdown-delay-duration`), seconds.
const SHUTDOWN_DELAY_SECONDS: i64 = 10;

/// Time for a pod to end, seconds: the delay, then requests under way, which
/// `kube-apiserver --request-timeout` ends after 60.
const TERMINATION_GRACE_SECONDS: i64 = SHUTDOWN_DELAY_SECONDS + 65;

/// The Deployment. Its pod template depends on neither the number of replicas nor the endpoint, so
/// scaling and a new address restart nothing.
pub(crate) fn deployment(inputs: &Inputs<'_>) -> Deployment {
    let tenant = inputs.tenant;
    let wanted = &tenant.deployment;
    let ours = metadata(tenant, &Names::of(tenant).deployment, CONTROL_PLANE);
    let pod_metadata = ObjectMeta {
        labels: Some(object_labels(tenant, CONTROL_PLANE)),
        annotations: Some([(checksum::ANNOTATION.to_owned(), checksum::checksum(inputs))].into()),
        ..ObjectMeta::default()
    };
    Deployment {
        metadata: with_additional(ours, &wanted.additional_metadata),
        spec: Some(DeploymentSpec {
            replicas: Some(tenant.replicas),
            revision_history_limit: Some(2),
            selector: pod_selector(tenant),
            strategy: Some(strategy(wanted.strategy.as_ref())),
            template: PodTemplateSpec {
                metadata: Some(with_additional(
                    pod_metadata,
                    &wanted.pod_additional_metadata,
                )),
                spec: Some(pod(inputs)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The one asked for, else the contract's: new pods are all ready before old ones go.
fn strategy(asked: Option<&Strategy>) -> DeploymentStrategy {
    let (kind, rolling_update) = match asked {
        None => (
            StrategyType::RollingUpdate,
            Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::String("100%".to_owned())),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        ),
        Some(asked) => (
            asked.kind.unwrap_or(StrategyType::RollingUpdate),
            asked
                .rolling_update
                .clone()
                .map(|asked| RollingUpdateDeployment {
                    max_surge: asked.max_surge,
                    max_unavailable: asked.max_unavailable,
                }),
        ),
    };
    let (type_, rolling_update) = match kind {
        StrategyType::RollingUpdate => ("RollingUpdate", rolling_update),
        StrategyType::Recreate => ("Recreate", None),
    };
    DeploymentStrategy {
        type_: Some(type_.to_owned()),
        rolling_update,
    }
}

fn pod(inputs: &Inputs<'_>) -> PodSpec {
    let tenant = inputs.tenant;
    let wanted = &tenant.deployment;
    let mut containers = container::containers(inputs);
    // Behind them: the kubelet starts containers one after the other.
    containers.push(warden::warden(inputs.warden_image, tenant));
    containers.extend(additional::containers(wanted));
    let mut volumes = files::volumes(tenant);
    volumes.extend(additional::volumes(wanted));
    PodSpec {
        init_containers: some_if_any(additional::init_containers(wanted)),
        containers,
        volumes: Some(volumes),
        affinity: Some(scheduling::affinity(tenant)),
        topology_spread_constraints: Some(scheduling::topology_spread(tenant)),
        node_selector: (!wanted.node_selector.is_empty()).then(|| wanted.node_selector.clone()),
        tolerations: some_if_any(wanted.tolerations.0.clone()),
        runtime_class_name: wanted.runtime_class_name.clone(),
        service_account_name: wanted.service_account_name.clone(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(security::pod(wanted.pod_security_context.as_ref())),
        ..PodSpec::default()
    }
}

fn some_if_any<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
