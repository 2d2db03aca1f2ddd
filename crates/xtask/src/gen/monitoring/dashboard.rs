//! The Grafana dashboard, from a table of panels.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::yaml::sorted;

/// Columns of Grafana's grid.
const COLUMNS: usize = 24;
const HEIGHT: usize = 8;

/// One panel.
struct Panel {
    title: &'static str,
    /// What a person reads out of it.
    description: &'static str,
    /// `stat` or `timeseries`.
    kind: &'static str,
    unit: &'static str,
    width: usize,
    /// `PromQL` and the legend of its series.
    queries: &'static [(&'static str, &'static str)],
}

const fn stat(
    title: &'static str,
    description: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel {
        title,
        description,
        kind: "stat",
        unit: "short",
        width: 6,
        queries,
    }
}

const fn graph(
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel {
        title,
        description,
        kind: "timeseries",
        unit,
        width: 12,
        queries,
    }
}

const PANELS: &[Panel] = &[
    stat(
        "Operators that lead",
        "1 is right: one works, the others stand by.",
        &[("sum(stoker_leader)", "leading")],
    ),
    stat(
        "Tenants stuck",
        "Not ready, being deleted or being rolled out for more than ten minutes; the condition Stuck has what to do.",
        &[(
            "sum(max by (reason) (stoker_tenants_stuck)) or vector(0)",
            "stuck",
        )],
    ),
    stat(
        "DataStores not ready",
        "Tenants in them keep running; nothing new is placed there.",
        &[("max(stoker_data_stores{ready=\"false\"})", "not ready")],
    ),
    Panel {
        unit: "s",
        ..stat(
            "Next certificate renewal in",
            "Below zero: a renewal is overdue. Certificates are renewed when a third of their life is left.",
            &[(
                "min(stoker_certificates_renewal_due_timestamp_seconds) - time()",
                "renewal",
            )],
        )
    },
    graph(
        "Tenants by state",
        "Every tenant in one word.",
        "short",
        &[("max by (state) (stoker_tenant_control_planes)", "{{state}}")],
    ),
    graph(
        "Not ready, by reason",
        "The reasons are those of the condition Ready; docs/troubleshooting.md has what to do.",
        "short",
        &[("max by (reason) (stoker_tenants_not_ready)", "{{reason}}")],
    ),
    graph(
        "Rollouts by the operator",
        "Tenants whose pods change because the operator did: one rolls, the others wait for their turn.",
        "short",
        &[("max by (turn) (stoker_tenant_rollouts)", "{{turn}}")],
    ),
    graph(
        "Passes",
        "Reconciliations per second by how they ended.",
        "ops",
        &[(
            "sum by (controller, outcome) (rate(stoker_reconcile_total[5m]))",
            "{{controller}} {{outcome}}",
        )],
    ),
    graph(
        "Failed passes, by reason",
        "A category that grows with the fleet is the pool or the management API server, not a tenant.",
        "ops",
        &[(
            "sum by (controller, reason) (rate(stoker_reconcile_failures_total[5m]))",
            "{{controller}} {{reason}}",
        )],
    ),
    graph(
        "Steps, 90th percentile",
        "Turn is the wait for --max-concurrent-reconciles; Birth runs from the first sight of a tenant to its Deployment.",
        "s",
        &[(
            "histogram_quantile(0.9, sum by (le, step) (rate(stoker_reconcile_step_seconds_bucket[5m])))",
            "{{step}}",
        )],
    ),
    graph(
        "Queue",
        "Passes in progress, and those among them that wait for a turn.",
        "short",
        &[
            (
                "sum by (controller) (stoker_reconcile_in_progress)",
                "in progress: {{controller}}",
            ),
            ("sum(stoker_reconcile_waiting)", "waiting"),
        ],
    ),
    graph(
        "Requests to the management API server",
        "An idle fleet causes none but the lease's.",
        "reqps",
        &[(
            "sum by (verb, resource) (rate(stoker_api_requests_total{side=\"Management\"}[5m]))",
            "{{verb}} {{resource}}",
        )],
    ),
    graph(
        "Refused or failed requests to the management API server",
        "By status code; none is no answer. 404 and 409 are ordinary, 401, 403, 429 and 5xx are not.",
        "reqps",
        &[(
            "sum by (verb, code) (rate(stoker_api_errors_total{side=\"Management\"}[5m]))",
            "{{verb}} {{code}}",
        )],
    ),
    graph(
        "Refused or failed requests to tenants",
        "Of all tenants together; a tenant's own admission webhooks refuse with 4xx and 5xx.",
        "reqps",
        &[(
            "sum by (verb, code) (rate(stoker_api_errors_total{side=\"Tenant\"}[5m]))",
            "{{verb}} {{code}}",
        )],
    ),
    graph(
        "Requests to tenants",
        "Into all tenants together.",
        "reqps",
        &[(
            "sum by (verb, resource) (rate(stoker_api_requests_total{side=\"Tenant\"}[5m]))",
            "{{verb}} {{resource}}",
        )],
    ),
    graph(
        "CPU of the operators",
        "Processor seconds per second.",
        "short",
        &[(
            "rate(process_cpu_seconds_total[5m]) * on (instance) group by (instance) (stoker_leader)",
            "{{instance}}",
        )],
    ),
    graph(
        "Memory of the operators",
        "Resident.",
        "bytes",
        &[(
            "process_resident_memory_bytes * on (instance) group by (instance) (stoker_leader)",
            "{{instance}}",
        )],
    ),
    graph(
        "Connections through the gateways",
        "Open ones of each replica. They end last where a replica is drained.",
        "short",
        &[("stoker_gateway_connections_open", "{{instance}}")],
    ),
    graph(
        "Connections refused by the gateways",
        "By reason. UnknownName and NotTls are the internet; Full, Unreachable and Tenant… have runbooks.",
        "ops",
        &[(
            "sum by (reason) (rate(stoker_gateway_refused_total[5m]))",
            "{{reason}}",
        )],
    ),
];

/// The dashboard as Grafana imports it; it asks for the Prometheus data source.
pub(in crate::r#gen) fn dashboard() -> Result<String> {
    let (mut x, mut y) = (0, 0);
    let mut panels = Vec::new();
    for (index, panel) in PANELS.iter().enumerate() {
        if x + panel.width > COLUMNS {
            (x, y) = (0, y + HEIGHT);
        }
        panels.push(drawn(panel, index + 1, x, y));
        x += panel.width;
    }
    let dashboard = json!({
        "uid": "stoker",
        "title": "Stoker",
        "tags": ["stoker"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": [{
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        }]},
        "panels": panels,
    });
    Ok(format!(
        "{}\n",
        serde_json::to_string_pretty(&sorted(dashboard))?
    ))
}

fn drawn(panel: &Panel, id: usize, x: usize, y: usize) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|((query, legend), name)| {
            json!({ "refId": name, "expr": query, "legendFormat": legend, "datasource": source })
        })
        .collect();
    json!({
        "id": id,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": source,
        "gridPos": { "x": x, "y": y, "w": panel.width, "h": HEIGHT },
        "fieldConfig": { "defaults": { "unit": panel.unit }, "overrides": [] },
        "targets": targets,
    })
}
