//! Prometheus metrics. Label sets are closed, but for tenants' names, of which as many as asked for are shown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::refusal::Refusal;
use crate::routes::Routes;
use crate::tenant::Tenant;

#[derive(Clone, Debug, EncodeLabelSet, Hash, PartialEq, Eq)]
struct RefusedLabels {
    reason: Refusal,
}

/// What the gateway counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections taken.
    pub accepted: Counter,
    /// Those that are open, whatever becomes of them.
    pub open: Gauge,
    refused: Family<RefusedLabels, Counter>,
    /// Attempts to reach a backend that failed.
    pub backend_failures: Counter,
    /// Routes that could not be read.
    pub source_failures: Counter,
    /// Tenants of which the operator was told that somebody wants them.
    pub wakes: Counter,
}

impl Metrics {
    /// Counters at zero; of `routes` the first `shown` tenants that get a connection are shown each for itself.
    #[must_use]
    pub fn new(routes: Arc<Routes>, shown: usize) -> Self {
        let mut registry = Registry::with_prefix("stoker_gateway");
        let (accepted, open) = (Counter::default(), Gauge::default());
        let (backend_failures, source_failures) = (Counter::default(), Counter::default());
        let refused = Family::default();
        registry.register("connections", "Connections taken", accepted.clone());
        registry.register(
            "connections_open",
            "Connections that are open",
            open.clone(),
        );
        registry.register("refused", "Connections not let through", refused.clone());
        registry.register(
            "backend_failures",
            "Failed attempts to reach a backend",
            backend_failures.clone(),
        );
        registry.register(
            "source_failures",
            "Times that routes could not be read",
            source_failures.clone(),
        );
        let wakes = Counter::default();
        registry.register(
            "wakes",
            "Times that the operator was told that a tenant which sleeps is wanted",
            wakes.clone(),
        );
        registry.register_collector(Box::new(Tenants {
            routes,
            most: shown,
            shown: Mutex::default(),
        }));
        Self {
            registry,
            accepted,
            open,
            refused,
            backend_failures,
            source_failures,
            wakes,
        }
    }

    /// One more that is not let through.
    pub fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// In the text format.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Routes and tenants, read when they are asked for.
#[derive(Debug)]
struct Tenants {
    routes: Arc<Routes>,
    most: usize,
    /// A series that is there stays there, as long as its tenant does.
    shown: Mutex<BTreeSet<Box<str>>>,
}

impl Tenants {
    fn shown(&self) -> (Vec<Arc<Tenant>>, usize) {
        let mut tenants = self.routes.tenants();
        tenants.retain(|tenant| tenant.connections.get() + tenant.limited.get() > 0);
        tenants.sort_by(|one, other| one.name().cmp(other.name()));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let there: BTreeSet<&str> = tenants.iter().map(|tenant| tenant.name()).collect();
        shown.retain(|name| there.contains(&**name));
        for name in there {
            if shown.len() < self.most {
                shown.insert(name.into());
            }
        }
        let all = tenants.len();
        tenants.retain(|tenant| shown.contains(tenant.name()));
        let hidden = all - tenants.len();
        (tenants, hidden)
    }
}

/// Name, help and value of a tenant's counter.
type TenantCounter = (&'static str, &'static str, fn(&Tenant) -> u64);

const COUNTERS: [TenantCounter; 4] = [
    (
        "tenant_connections",
        "Connections led to a tenant",
        |tenant| tenant.connections.get(),
    ),
    (
        "tenant_limited",
        "Connections of a tenant refused for its limits",
        |tenant| tenant.limited.get(),
    ),
    (
        "tenant_received_bytes",
        "Bytes from a tenant's clients",
        |tenant| tenant.received.get(),
    ),
    (
        "tenant_sent_bytes",
        "Bytes to a tenant's clients",
        |tenant| tenant.sent.get(),
    ),
];

impl Collector for Tenants {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: usize| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
        };
        let (tenants, hidden) = self.shown();
        gauge("routes", "Names that are known", self.routes.len())?;
        gauge(
            "tenants_hidden",
            "Tenants with connections that are not shown each for itself",
            hidden,
        )?;
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for tenant in &tenants {
                let labels = [("tenant", tenant.name())];
                ConstCounter::new(value(tenant)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Connections of a tenant that are open or held";
        let mut metric =
            encoder.encode_descriptor("tenant_connections_open", help, None, MetricType::Gauge)?;
        for tenant in &tenants {
            let labels = [("tenant", tenant.name())];
            ConstGauge::new(i64::from(tenant.open())).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Target;

    #[test]
    fn as_many_tenants_as_asked_for_are_shown_and_stay() {
        let routes = Arc::new(Routes::default());
        let metrics = Metrics::new(routes.clone(), 2);
        let tenant = |name: &str| {
            let target = Target {
                tenant: name.into(),
                ..Target::default()
            };
            routes.set(name, &target);
            let tenant = routes.find(name).unwrap().tenant.clone();
            tenant.connections.add(1);
            tenant
        };
        let shown = |name: &str| {
            metrics
                .render()
                .unwrap()
                .contains(&format!("tenant_connections_total{{tenant=\"{name}\"}} 1"))
        };
        let (b, _c) = (tenant("b"), tenant("c"));
        assert!(shown("b") && shown("c"));
        let _a = tenant("a");
        assert!(!shown("a") && shown("b") && shown("c"));
        assert!(
            metrics
                .render()
                .unwrap()
                .contains("stoker_gateway_tenants_hidden 1")
        );
        routes.remove("b");
        drop(b);
        assert!(shown("a") && !shown("b") && shown("c"));
        assert!(
            metrics
                .render()
                .unwrap()
                .contains("stoker_gateway_routes 2")
        );
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let metrics = Metrics::new(Arc::default(), 0);
        metrics.refused(Refusal::UnknownName);
        let text = metrics.render().unwrap();
        assert!(
            text.contains("stoker_gateway_refused_total{reason=\"UnknownName\"} 1"),
            "{text}"
        );
    }
}
