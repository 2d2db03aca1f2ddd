//! The Deployment of a control plane: one pod with the three stock components.

mod checksum;
mod container;
mod files;
mod flags;
mod probe;
mod scheduling;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::metadata::{CONTROL_PLANE, metadata, object_labels, pod_selector};
use crate::{Inputs, Names};

pub(crate) use files::DIRECTORY as CONFIG_DIRECTORY;

/// User and group of all containers: not root, and the number by which distroless images call
/// `nonroot`.
const USER: i64 = 65532;

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
    Deployment {
        metadata: metadata(tenant, &Names::of(tenant).deployment, CONTROL_PLANE),
        spec: Some(DeploymentSpec {
            replicas: Some(tenant.replicas),
            revision_history_limit: Some(2),
            selector: pod_selector(tenant),
            // The contract's: new pods are all ready before old ones go.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("100%".to_owned())),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(object_labels(tenant, CONTROL_PLANE)),
                    annotations: Some(
                        [(checksum::ANNOTATION.to_owned(), checksum::checksum(inputs))].into(),
                    ),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(inputs)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(inputs: &Inputs<'_>) -> PodSpec {
    let tenant = inputs.tenant;
    PodSpec {
        containers: container::containers(inputs),
        volumes: Some(files::volumes(&Names::of(tenant))),
        affinity: Some(scheduling::affinity(tenant)),
        topology_spread_constraints: Some(vec![scheduling::zone_spread(tenant)]),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}
