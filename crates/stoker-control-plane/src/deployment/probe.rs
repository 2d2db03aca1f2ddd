//! Probes that find a started component within a second and are slow to kill one.

use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Asks every second whether the component is up; no other probe runs before that. It may take ten
/// minutes: a machine that starts thirty tenants at once is busy, and killing them helps nobody.
pub(super) fn startup(port: i32, path: &str) -> Probe {
    Probe {
        period_seconds: Some(1),
        timeout_seconds: Some(5),
        failure_threshold: Some(600),
        ..https(port, path)
    }
}

/// Takes a pod out of the Service after 15 seconds without an answer.
pub(super) fn readiness(port: i32, path: &str) -> Probe {
    Probe {
        period_seconds: Some(5),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..https(port, path)
    }
}

/// Restarts a component that has hung for two minutes, not one that is slow.
pub(super) fn liveness(port: i32, path: &str) -> Probe {
    Probe {
        period_seconds: Some(10),
        timeout_seconds: Some(15),
        failure_threshold: Some(12),
        ..https(port, path)
    }
}

fn https(port: i32, path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
