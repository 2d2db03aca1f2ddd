//! Prometheus metrics. Label sets are closed: no tenant names in histograms or counters.

mod fleet;
mod process;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use stoker_kube::{Exchange, RequestCounter};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use fleet::{CertificateDates, Fleet};

/// Reconcile loops.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Controller {
    /// `TenantControlPlane`.
    Tenant,
    /// `DataStore`.
    DataStore,
    /// `KubeconfigGenerator`.
    KubeconfigGenerator,
    /// The generated kubeconfigs of a tenant.
    Kubeconfigs,
    /// `JoinToken`.
    JoinToken,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Outcome {
    /// Everything is as wanted.
    Done,
    /// It waits for something that will wake it.
    Waiting,
    /// It failed and is tried again.
    Failed,
}

/// Steps of a tenant's pass that are timed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Step {
    /// Waiting for one of `--max-concurrent-reconciles` turns on the management side.
    Turn,
    /// Reads, the claim in the pool, Service.
    Prepare,
    /// Secrets, `ConfigMap`s, policy, then the Deployment.
    Apply,
    /// Objects inside the tenant.
    Inside,
    /// From the first sight of a new tenant to its Deployment applied.
    Birth,
}

/// What became of a spec under review.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Reviewed {
    /// Let in.
    Allowed,
    /// Let in with a warning.
    Warned,
    /// Refused with the reason.
    Refused,
    /// Let in because what it gives could not be tried out.
    Unknown,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReviewLabels {
    result: Reviewed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    controller: Controller,
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: Step,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    side: Side,
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    side: Side,
    verb: &'static str,
    code: &'static str,
}

/// Which API server a request went to.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Side {
    /// The management cluster's.
    Management,
    /// A tenant's.
    Tenant,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    controller: Controller,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabels {
    controller: Controller,
}

/// One more in a gauge while this lives.
#[derive(Debug)]
#[must_use = "it counts as long as it lives"]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    outcomes: Family<OutcomeLabels, Counter>,
    steps: Family<StepLabels, Histogram>,
    requests: Family<RequestLabels, Counter>,
    reviews: Family<ReviewLabels, Histogram>,
    errors: Family<ErrorLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    passes: Family<ControllerLabels, Gauge>,
    waiting: Gauge,
    leader: Gauge,
    process: Registry,
    cpu: Gauge<f64, AtomicU64>,
    resident: Gauge,
    anonymous: Gauge,
}

/// 5 ms to 40 s: the operator's own share is tens of milliseconds, a wait for etcd may be seconds.
fn step_histogram() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
        0.005, 2.0, 14,
    ))
}

/// 1 ms to 8 s: a review asks the API server a few questions, and has three seconds.
fn review_histogram() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
        0.001, 2.0, 14,
    ))
}

/// Statuses that API servers refuse with; another one by its class.
const CODES: [(u16, &str); 13] = [
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
];

fn code(status: u16) -> &'static str {
    let class = if status < 500 { "4xx" } else { "5xx" };
    let mut codes = CODES.iter();
    let known = codes.find(|(known, _)| *known == status);
    known.map_or(class, |(_, code)| code)
}

impl Default for Metrics {
    fn default() -> Self {
        let (cpu, resident, anonymous) = (Gauge::default(), Gauge::default(), Gauge::default());
        let mut process = Registry::default();
        process.register(
            "process_cpu_seconds_total",
            "CPU time of this process",
            cpu.clone(),
        );
        process.register(
            "process_resident_memory_bytes",
            "Resident memory of this process",
            resident.clone(),
        );
        process.register(
            "process_resident_anonymous_bytes",
            "Resident memory of this process without pages of files",
            anonymous.clone(),
        );
        let metrics = Self {
            process,
            cpu,
            resident,
            anonymous,
            registry: Mutex::new(Registry::with_prefix("stoker")),
            outcomes: Family::default(),
            steps: Family::new_with_constructor(step_histogram),
            requests: Family::default(),
            reviews: Family::new_with_constructor(review_histogram),
            errors: Family::default(),
            failures: Family::default(),
            passes: Family::default(),
            waiting: Gauge::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.lock();
        registry.register(
            "reconcile",
            "Passes by controller and outcome",
            self.outcomes.clone(),
        );
        registry.register_with_unit(
            "reconcile_step",
            "Duration of a tenant's steps",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to API servers",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "admission_review",
            "Duration of reviews of specs by what became of them",
            Unit::Seconds,
            self.reviews.clone(),
        );
        registry.register(
            "api_errors",
            "Requests to API servers that were refused, by status code, or had no answer: none",
            self.errors.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Failed passes by controller and reason",
            self.failures.clone(),
        );
        registry.register(
            "reconcile_in_progress",
            "Passes in progress by controller",
            self.passes.clone(),
        );
        registry.register(
            "reconcile_waiting",
            "Passes over tenants that wait for a turn on the management side",
            self.waiting.clone(),
        );
        registry.register(
            "leader",
            "1 while this process holds the lease",
            self.leader.clone(),
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a finished pass.
    pub fn finished(&self, controller: Controller, outcome: Outcome) {
        self.outcomes
            .get_or_create(&OutcomeLabels {
                controller,
                outcome,
            })
            .inc();
    }

    /// Records how long a step took.
    pub fn step(&self, step: Step, took: std::time::Duration) {
        self.steps
            .get_or_create(&StepLabels { step })
            .observe(took.as_secs_f64());
    }

    /// Counts the requests of a client and what is refused of them.
    pub fn counter(self: &Arc<Self>, side: Side) -> RequestCounter {
        let metrics = self.clone();
        Arc::new(move |verb, resource, exchange| match exchange {
            Exchange::Sent => metrics.request(side, verb, resource),
            Exchange::Refused(status) => metrics.request_failed(side, verb, code(status)),
            Exchange::Failed => metrics.request_failed(side, verb, "none"),
        })
    }

    /// Counts a request.
    pub fn request(&self, side: Side, verb: &'static str, resource: &'static str) {
        let labels = RequestLabels {
            side,
            verb,
            resource,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Records a review and how long it took.
    pub fn reviewed(&self, result: Reviewed, took: std::time::Duration) {
        self.reviews
            .get_or_create(&ReviewLabels { result })
            .observe(took.as_secs_f64());
    }

    /// Counts a request that was refused with `code`, or had no answer: `none`.
    pub fn request_failed(&self, side: Side, verb: &'static str, code: &'static str) {
        let labels = ErrorLabels { side, verb, code };
        self.errors.get_or_create(&labels).inc();
    }

    /// Counts a failed pass. `reason` is from a closed set: an error's category.
    pub fn failed(&self, controller: Controller, reason: &'static str) {
        self.finished(controller, Outcome::Failed);
        self.failures
            .get_or_create(&FailureLabels { controller, reason })
            .inc();
    }

    /// Counts a pass in progress.
    pub fn pass(&self, controller: Controller) -> Counted {
        Counted::new(
            self.passes
                .get_or_create(&ControllerLabels { controller })
                .clone(),
        )
    }

    /// Waits for a turn, and measures that. `None` only when `turns` is closed.
    pub async fn turn<'a>(&self, turns: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
        let started = std::time::Instant::now();
        let waiting = Counted::new(self.waiting.clone());
        let turn = turns.acquire().await.ok();
        drop(waiting);
        self.step(Step::Turn, started.elapsed());
        turn
    }

    /// Asks for the fleet at every scrape from now on. To be called once, by the process that leads.
    pub fn follow(&self, fleet: impl Fn() -> Fleet + Send + Sync + 'static) {
        self.lock().register_collector(fleet::collector(fleet));
    }

    /// Says whether this process leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// Formatting failed.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        if let Some(usage) = process::usage() {
            self.cpu.set(usage.cpu_seconds);
            self.resident.set(usage.memory.resident);
            self.anonymous.set(usage.memory.anonymous);
        }
        let mut text = String::new();
        encode_registry(&mut text, &self.process)?;
        encode_registry(&mut text, &self.lock())?;
        encode_eof(&mut text).map(|()| text)
    }
}
