//! The warden's container: the one process of ours in the pod.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::security;

/// Where the API server asks the guard, on loopback.
pub(crate) const GUARD_PORT: u16 = 10270;
/// Where the kubelet asks whether it is alive. The pods' `NetworkPolicy` opens it to nobody else.
const HEALTH_PORT: u16 = 10271;

/// It has no readiness probe: an API server whose guard hangs still answers reads, and refuses what the
/// guard would. A container that does not run makes the pod unready all the same.
pub(super) fn warden(image: &str) -> Container {
    let mut security = security::container(None);
    security.read_only_root_filesystem = Some(true);
    // As measured (PSS): 1.8 MB, and 2.5 MB after questions on 50 connections at once.
    let requests = [("cpu", "1m"), ("memory", "4Mi")];
    Container {
        name: "stoker-warden".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/stoker-warden".to_owned()]),
        args: Some(vec![
            format!("--guard-address=127.0.0.1:{GUARD_PORT}"),
            format!("--health-port={HEALTH_PORT}"),
        ]),
        liveness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/livez".to_owned()),
                port: IntOrString::Int(i32::from(HEALTH_PORT)),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(
                requests
                    .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                    .into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security),
        ..Container::default()
    }
}
