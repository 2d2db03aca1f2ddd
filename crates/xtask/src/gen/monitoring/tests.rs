//! Alerts and dashboard speak of metrics that operator and gateway have, and every alert has a runbook.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use stoker_api::v1alpha1::{DataStore, TenantControlPlane};
use stoker_gateway::refusal::Refusal;
use stoker_gateway::routes::{Routes, Target};
use stoker_operator::metrics::{CertificateDates, Controller, Fleet, Metrics, Outcome, Side, Step};
use time::OffsetDateTime;

use super::*;

/// Everything that operator and gateway can expose, with every value of the labels that queries select by.
fn exposition() -> String {
    operator() + &gateway()
}

fn gateway() -> String {
    let routes = Arc::new(Routes::default());
    routes.set("a.example.com", &Target::default());
    routes.find("a.example.com").unwrap().tenant.limited.add(1);
    let metrics = stoker_gateway::metrics::Metrics::new(routes, 1);
    for reason in [Refusal::Full, Refusal::Unreachable] {
        metrics.refused(reason);
    }
    metrics.render().unwrap()
}

fn operator() -> String {
    let metrics = Metrics::default();
    metrics.finished(Controller::Tenant, Outcome::Done);
    metrics.failed(Controller::DataStore, "StatusNotWritten");
    for step in [
        Step::Turn,
        Step::Prepare,
        Step::Apply,
        Step::Inside,
        Step::Birth,
    ] {
        metrics.step(step, Duration::from_millis(1));
    }
    metrics.request(Side::Management, "apply", "secrets");
    metrics.request(Side::Tenant, "apply", "configmaps");
    for side in [Side::Management, Side::Tenant] {
        for code in ["404", "409"] {
            metrics.request_failed(side, "apply", code);
        }
    }
    drop(metrics.pass(Controller::Tenant));
    let stuck: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "a", "namespace": "b", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.3" },
        },
    }))
    .unwrap();
    metrics.follow(move || {
        let dates = CertificateDates {
            renew_at: OffsetDateTime::UNIX_EPOCH,
            authorities_end: OffsetDateTime::UNIX_EPOCH,
        };
        Fleet::of([&stuck], &[] as &[DataStore], [dates], Timestamp::now())
    });
    metrics.render().unwrap()
}

/// The metrics that `query` names, each with its matchers.
fn selectors(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if !name.starts_with("stoker_") && !name.starts_with("process_") {
            continue;
        }
        let matchers = after
            .strip_prefix('{')
            .and_then(|text| text.split_once('}'))
            .map_or("", |(matchers, _)| matchers);
        let matchers = matchers.split(',').filter_map(|matcher| {
            let (label, value) = matcher.split_once('=')?;
            let label = label.trim_end_matches('!').trim().to_owned();
            Some((label, value.trim_matches('"').to_owned()))
        });
        found.push((name.to_owned(), matchers.collect()));
    }
    found
}

fn check(query: &str, exposition: &str) {
    let found = selectors(query);
    assert!(!found.is_empty(), "{query} asks for nothing of ours");
    for (name, matchers) in found {
        let samples = exposition.lines().filter(|line| {
            line.strip_prefix(&name)
                .is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        let samples: Vec<&str> = samples.collect();
        assert!(!samples.is_empty(), "there is no metric {name}: {query}");
        for (label, value) in matchers {
            let pair = format!("{label}=\"{value}\"");
            assert!(
                samples.iter().any(|sample| sample.contains(&pair)),
                "{name} has no {pair}: {query}"
            );
        }
    }
}

fn rules() -> Vec<Value> {
    let groups: Value = serde_saphyr::from_str(&alerts()).unwrap();
    groups["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn every_alert_asks_for_metrics_that_exist() {
    let exposition = exposition();
    for rule in rules() {
        check(rule["expr"].as_str().unwrap(), &exposition);
    }
}

#[test]
fn every_panel_asks_for_metrics_that_exist() {
    let exposition = exposition();
    let dashboard: Value = serde_json::from_str(&dashboard().unwrap()).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            check(target["expr"].as_str().unwrap(), &exposition);
        }
    }
}

#[test]
#[should_panic(expected = "there is no metric stoker_leaders")]
fn a_metric_that_does_not_exist_is_found() {
    check("max(stoker_leaders) == 0", &exposition());
}

#[test]
#[should_panic(expected = "has no step=\"turn\"")]
fn a_label_that_does_not_exist_is_found() {
    let query = "rate(stoker_reconcile_step_seconds_bucket{step=\"turn\"}[5m])";
    check(query, &exposition());
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let path = super::super::repository().join("docs/runbooks.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let rules = rules();
    let alerts: BTreeSet<&str> = rules
        .iter()
        .map(|rule| rule["alert"].as_str().unwrap())
        .collect();
    assert_eq!(sections, alerts);
    for rule in &rules {
        let anchor = rule["alert"].as_str().unwrap().to_lowercase();
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(link, format!("{RUNBOOKS}#{anchor}"));
        assert!(rule["labels"]["severity"].is_string() && rule["for"].is_string());
    }
}
