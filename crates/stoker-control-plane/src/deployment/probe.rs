//! Probes that find a started component within a second and are slow to kill one.

use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::v1alpha1::ProbeTiming;

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

/// `probe` with what was asked for; later settings win over earlier ones.
pub(super) fn timed(probe: Probe, asked: [Option<ProbeTiming>; 2]) -> Probe {
    asked
        .into_iter()
        .flatten()
        .fold(probe, |probe, asked| Probe {
            initial_delay_seconds: asked.initial_delay_seconds.or(probe.initial_delay_seconds),
            timeout_seconds: asked.timeout_seconds.or(probe.timeout_seconds),
            period_seconds: asked.period_seconds.or(probe.period_seconds),
            success_threshold: asked.success_threshold.or(probe.success_threshold),
            failure_threshold: asked.failure_threshold.or(probe.failure_threshold),
            ..probe
        })
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
