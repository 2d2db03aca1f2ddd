//! What is counted of a fleet.

use serde_json::json;

use super::*;
use crate::metrics::Metrics;

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A tenant in `state`, whose `Ready` is `status` for `reason` since `since`.
fn tenant(state: &str, status: &str, reason: &str, since: &str) -> TenantControlPlane {
    serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "a", "namespace": "b", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.3" },
        },
        "status": {
            "kubernetesResources": { "version": { "status": state } },
            "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": "",
                             "lastTransitionTime": since }],
        },
    }))
    .unwrap()
}

fn fleet(tenants: &[TenantControlPlane]) -> Fleet {
    Fleet::of(tenants, &[] as &[DataStore], [], now())
}

#[test]
fn a_tenant_is_stuck_once_it_is_not_ready_for_ten_minutes() {
    let starting = tenant(
        "Provisioning",
        "False",
        "PodsStarting",
        "2026-01-01T11:51:00Z",
    );
    let stuck = tenant("NotReady", "False", "KeyLost", "2026-01-01T11:49:00Z");
    let fleet = fleet(&[starting, stuck]);
    assert_eq!(
        fleet.not_ready.into_iter().collect::<Vec<_>>(),
        [("KeyLost".to_owned(), 1), ("PodsStarting".to_owned(), 1)]
    );
    assert_eq!(
        fleet.stuck.into_iter().collect::<Vec<_>>(),
        [("KeyLost".to_owned(), 1)]
    );
    assert_eq!(fleet.tenants["NotReady"], 1);
}

#[test]
fn sleeping_ready_and_paused_tenants_are_not_stuck() {
    let long_ago = "2026-01-01T00:00:00Z";
    let sleeping = tenant("Sleeping", "False", "Sleeping", long_ago);
    let ready = tenant("Ready", "True", "Available", long_ago);
    let mut paused = tenant("NotReady", "False", "KeyLost", long_ago);
    paused
        .annotations_mut()
        .insert(PAUSED.to_owned(), String::new());
    let fleet = fleet(&[sleeping, ready, paused]);
    assert!(fleet.stuck.is_empty(), "{fleet:?}");
    assert_eq!(fleet.not_ready.len(), 1);
}

#[test]
fn a_deletion_that_takes_long_is_stuck_whatever_the_condition_says() {
    let mut tenant = tenant("Ready", "True", "Available", "2026-01-01T11:59:00Z");
    let begun = "2026-01-01T11:00:00Z".parse().unwrap();
    tenant.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(begun));
    let fleet = fleet(&[tenant]);
    assert_eq!(fleet.tenants["Deleting"], 1);
    assert_eq!(fleet.stuck["NotLookedAt"], 1);
}

#[test]
fn a_rollout_that_takes_long_is_stuck_although_the_old_pods_serve_and_turns_are_counted() {
    let long_ago = "2026-01-01T00:00:00Z";
    let mut tenant = tenant("Ready", "True", "Available", long_ago);
    let conditions = &mut tenant.status.as_mut().unwrap().conditions;
    for (type_, reason) in [("Stuck", "RolloutStuck"), ("RolloutTurn", "Rolling")] {
        let condition = json!({ "type": type_, "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": long_ago });
        conditions.push(serde_json::from_value(condition).unwrap());
    }
    let fleet = fleet(&[tenant]);
    assert_eq!(fleet.stuck["RolloutStuck"], 1);
    assert!(fleet.not_ready.is_empty());
    assert_eq!(
        (fleet.rollouts["Rolling"], fleet.rollouts["Waiting"]),
        (1, 0)
    );
}

#[test]
fn what_an_api_server_refuses_is_counted_by_code() {
    let metrics = std::sync::Arc::new(Metrics::default());
    let counter = metrics.counter(crate::metrics::Side::Management);
    for exchange in [
        stoker_kube::Exchange::Sent,
        stoker_kube::Exchange::Refused(409),
        stoker_kube::Exchange::Refused(599),
        stoker_kube::Exchange::Failed,
    ] {
        counter("apply", "secrets", exchange);
    }
    let text = metrics.render().unwrap();
    for line in [
        "stoker_api_requests_total{side=\"Management\",verb=\"apply\",resource=\"secrets\"} 1",
        "stoker_api_errors_total{side=\"Management\",verb=\"apply\",code=\"409\"} 1",
        "stoker_api_errors_total{side=\"Management\",verb=\"apply\",code=\"5xx\"} 1",
        "stoker_api_errors_total{side=\"Management\",verb=\"apply\",code=\"none\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_earliest_dates_count() {
    let dates = |renew_at, authorities_end| CertificateDates {
        renew_at: OffsetDateTime::from_unix_timestamp(renew_at).unwrap(),
        authorities_end: OffsetDateTime::from_unix_timestamp(authorities_end).unwrap(),
    };
    let none: &[TenantControlPlane] = &[];
    let fleet = Fleet::of(
        none,
        &[] as &[DataStore],
        [dates(10, 900), dates(20, 800)],
        now(),
    );
    assert_eq!(
        (fleet.renewal_due, fleet.authorities_end),
        (Some(10), Some(800))
    );
}

#[test]
fn a_scrape_shows_the_fleet_of_that_moment() {
    let metrics = Metrics::default();
    let stuck = tenant("NotReady", "False", "KeyLost", "2026-01-01T00:00:00Z");
    metrics.follow(move || Fleet::of([&stuck], &[] as &[DataStore], [], now()));
    let text = metrics.render().unwrap();
    for line in [
        "stoker_tenant_control_planes{state=\"NotReady\"} 1",
        "stoker_tenant_control_planes{state=\"Ready\"} 0",
        "stoker_tenants_stuck{reason=\"KeyLost\"} 1",
        "stoker_data_stores{ready=\"false\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}
