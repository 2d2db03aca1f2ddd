//! What the operator says about itself.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use stoker_lab::product::NAMESPACE;

/// Port of the metrics in `manifests/install.yaml`.
const METRICS_PORT: u16 = 8080;

/// The metrics of the leading operator at one moment: name with labels, value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metrics(BTreeMap<String, f64>);

/// Reads the metrics of the operator that leads, through the API server's proxy.
///
/// # Errors
/// When none leads or answers.
pub(super) async fn metrics(client: &Client) -> Result<Metrics> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    for pod in pods.list(&ListParams::default()).await? {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods/{}:{METRICS_PORT}/proxy/metrics",
            pod.name_any()
        );
        let request = http::Request::get(path).body(Vec::new())?;
        // One that is ending or starting does not answer.
        let Ok(text) = client.request_text(request).await else {
            continue;
        };
        let metrics = Metrics::parse(&text);
        if metrics.get("stoker_leader") > 0.5 {
            return Ok(metrics);
        }
    }
    bail!("no operator leads")
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// CPU time of the process, seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.get("process_cpu_seconds_total")
    }

    /// The same since `before`, milliseconds.
    pub(super) fn cpu_since(&self, before: &Self) -> f64 {
        (self.cpu_seconds() - before.cpu_seconds()) * 1000.0
    }

    /// Resident memory, bytes.
    pub(super) fn resident_bytes(&self) -> f64 {
        self.get("process_resident_memory_bytes")
    }

    /// Resident memory without pages of the program's file, bytes.
    pub(super) fn anonymous_bytes(&self) -> f64 {
        self.get("process_resident_anonymous_bytes")
    }

    /// Sum and number of a step's durations, in seconds.
    fn step(&self, step: &str) -> (f64, f64) {
        let read = |part: &str| {
            self.get(&format!(
                "stoker_reconcile_step_seconds_{part}{{step=\"{step}\"}}"
            ))
        };
        (read("sum"), read("count"))
    }

    /// Mean duration of a step since `before`, seconds; `None` when it did not happen.
    pub(super) fn step_since(&self, before: &Self, step: &str) -> Option<f64> {
        let ((sum, count), (sum_before, count_before)) = (self.step(step), before.step(step));
        let happened = count - count_before;
        (happened > 0.0).then(|| (sum - sum_before) / happened)
    }

    /// How often a step happened since `before`.
    pub(super) fn steps_since(&self, before: &Self, step: &str) -> f64 {
        self.step(step).1 - before.step(step).1
    }

    /// Requests since `before`, the lease's left out: it is renewed whatever happens.
    pub(super) fn requests_since(&self, before: &Self, side: &str) -> Requests {
        let all = self.0.iter().filter_map(|(name, value)| {
            let labels = name.strip_prefix("stoker_api_requests_total{")?;
            let request = Request {
                verb: label(labels, "verb")?,
                resource: label(labels, "resource")?,
            };
            let happened = value - before.get(name);
            let counts = label(labels, "side")? == side && happened > 0.0;
            counts.then_some((request, happened))
        });
        let (lease, counts) = all.partition(|(request, _)| request.resource == "leases");
        Requests { counts, lease }
    }
}

/// Of nothing it is 0, where `sum` says -0.
fn sum<'a>(counts: impl Iterator<Item = &'a f64>) -> f64 {
    counts.fold(0.0, |sum, count| sum + count)
}

/// The value of `name="…"`; our values hold no quotes.
fn label(labels: &str, name: &str) -> Option<String> {
    let begin = labels.find(&format!("{name}=\""))? + name.len() + 2;
    let value = labels[begin..].split('"').next()?;
    Some(value.to_owned())
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    /// As in RBAC: `get`, `patch`, …
    pub(super) verb: String,
    /// Plural of the kind.
    pub(super) resource: String,
}

/// How often each request was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Requests {
    counts: BTreeMap<Request, f64>,
    lease: BTreeMap<Request, f64>,
}

impl Requests {
    /// All but the lease's.
    pub(super) fn total(&self) -> f64 {
        sum(self.counts.values())
    }

    /// Those that change something, but the lease's.
    pub(super) fn writes(&self) -> f64 {
        let writes = self
            .counts
            .iter()
            .filter(|(request, _)| !matches!(request.verb.as_str(), "get" | "list" | "watch"));
        sum(writes.map(|(_, count)| count))
    }

    /// The lease's.
    pub(super) fn lease(&self) -> f64 {
        sum(self.lease.values())
    }

    /// `verb resource ×n` each, divided by `tenants`, most first.
    pub(super) fn text(&self, tenants: f64) -> String {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|one, other| other.1.total_cmp(one.1));
        let texts = counts.iter().map(|(request, count)| {
            let Request { verb, resource } = request;
            let each = **count / tenants;
            let digits = usize::from(each.fract() > 0.01);
            format!("{verb} {resource} {each:.digits$}")
        });
        let texts: Vec<String> = texts.collect();
        if texts.is_empty() {
            return "none".to_owned();
        }
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE x counter
stoker_api_requests_total{side=\"Management\",verb=\"patch\",resource=\"secrets\"} 2
stoker_reconcile_step_seconds_sum{step=\"Birth\"} 0.5
stoker_reconcile_step_seconds_count{step=\"Birth\"} 1
process_cpu_seconds_total 1.25
";
    const AFTER: &str =
        "stoker_api_requests_total{side=\"Management\",verb=\"patch\",resource=\"secrets\"} 9
stoker_api_requests_total{side=\"Management\",verb=\"get\",resource=\"secrets\"} 1
stoker_api_requests_total{side=\"Management\",verb=\"update\",resource=\"leases\"} 4
stoker_api_requests_total{side=\"Tenant\",verb=\"patch\",resource=\"roles\"} 3
stoker_reconcile_step_seconds_sum{step=\"Birth\"} 0.9
stoker_reconcile_step_seconds_count{step=\"Birth\"} 3
process_cpu_seconds_total 1.5
";

    #[test]
    fn differences_are_by_side_and_without_the_lease() {
        let (before, after) = (Metrics::parse(BEFORE), Metrics::parse(AFTER));
        let requests = after.requests_since(&before, "Management");
        assert_eq!(requests.text(1.0), "patch secrets 7, get secrets 1");
        assert!((requests.writes() - 7.0).abs() < f64::EPSILON);
        assert!((requests.lease() - 4.0).abs() < f64::EPSILON);
        assert!((after.step_since(&before, "Birth").unwrap() - 0.2).abs() < 1e-9);
        assert_eq!(after.step_since(&before, "Inside"), None);
    }
}
