//! Alerts and the Grafana dashboard, as plain files and for the chart.

mod dashboard;

use anyhow::Result;
pub(super) use dashboard::dashboard;

use super::{Artifact, HEADER};

/// The runbooks, one section per alert.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbooks.md");

/// Rules in the form of Prometheus.
pub(super) fn alerts() -> String {
    let rules = include_str!("monitoring/alerts.yaml").replace("${RUNBOOKS}", RUNBOOKS);
    format!("{HEADER}{rules}")
}

/// What Prometheus and Grafana read without an operator of theirs.
pub(super) fn files() -> Result<Vec<Artifact>> {
    Ok(vec![
        Artifact {
            path: "manifests/monitoring/alerts.yaml",
            content: alerts(),
        },
        Artifact {
            path: "manifests/monitoring/dashboard.json",
            content: dashboard()?,
        },
    ])
}

#[cfg(test)]
mod tests;
