//! What the far end counts, for Prometheus.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why there is no connection to a server.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Hash, PartialEq, Eq)]
pub(super) enum Unconnected {
    /// It does not answer, or not in time.
    Unreachable,
    /// The handshake failed: certificates of another tenant, for instance.
    Handshake,
    /// It does not speak as a server does.
    Protocol,
    /// It is one to which there is a connection already.
    Known,
}

/// Why a stream has no target.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Hash, PartialEq, Eq)]
pub(super) enum Undialled {
    /// It names no port, or no name that is known, or its target refuses.
    Failed,
    /// The rules for what is dialled forbid it.
    Forbidden,
    /// There is no way there from here.
    Unreachable,
    /// No answer in time.
    Timeout,
}

#[derive(Clone, Debug, EncodeLabelSet, Hash, PartialEq, Eq)]
struct ServerLabels {
    server: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Hash, PartialEq, Eq)]
struct ConnectionLabels {
    reason: Unconnected,
}

#[derive(Clone, Debug, EncodeLabelSet, Hash, PartialEq, Eq)]
struct DialLabels {
    reason: Undialled,
}

/// What the far end counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    up: AtomicUsize,
    links: Family<ServerLabels, Gauge>,
    connections: Counter,
    disconnections: Counter,
    connection_failures: Family<ConnectionLabels, Counter>,
    streams: Counter,
    streams_open: Gauge,
    dial_failures: Family<DialLabels, Counter>,
    /// Bytes from servers to targets.
    pub(super) received: Counter,
    /// Bytes from targets to servers.
    pub(super) sent: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stoker_node_tunnel");
        let links = Family::default();
        let help = "Connections that are up, by server (API server)";
        registry.register("links", help, links.clone());
        let connection_failures = Family::default();
        let help = "Attempts to connect to a server that failed";
        registry.register("connection_failures", help, connection_failures.clone());
        let dial_failures = Family::default();
        let help = "Streams whose target was not reached";
        registry.register("dial_failures", help, dial_failures.clone());
        let streams_open = Gauge::default();
        let help = "Streams that are open";
        registry.register("streams_open", help, streams_open.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let connections = counter("connections", "Connections made to servers");
        let disconnections = counter(
            "disconnections",
            "Connections to servers that have ended, and are made anew unless the server is gone",
        );
        let streams = counter("streams", "Streams that were asked for");
        let received = counter("received_bytes", "Bytes from servers to targets");
        let sent = counter("sent_bytes", "Bytes from targets to servers");
        Self {
            registry,
            up: AtomicUsize::new(0),
            links,
            connections,
            disconnections,
            connection_failures,
            streams,
            streams_open,
            dial_failures,
            received,
            sent,
        }
    }
}

impl Metrics {
    /// Whether there is a connection to a server.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.up.load(Ordering::Relaxed) > 0
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

    pub(super) fn connected(&self, server: &str) {
        self.connections.inc();
        self.up.fetch_add(1, Ordering::Relaxed);
        self.links.get_or_create(&labels(server)).inc();
    }

    /// A server that is gone for good leaves no series.
    pub(super) fn disconnected(&self, server: &str) {
        self.disconnections.inc();
        self.up.fetch_sub(1, Ordering::Relaxed);
        let labels = labels(server);
        // Before it is removed: a series that is looked at is locked.
        let before = self.links.get_or_create(&labels).dec();
        if before <= 1 {
            self.links.remove(&labels);
        }
    }

    pub(super) fn not_connected(&self, reason: Unconnected) {
        let labels = ConnectionLabels { reason };
        self.connection_failures.get_or_create(&labels).inc();
    }

    pub(super) fn not_dialled(&self, reason: Undialled) {
        self.dial_failures
            .get_or_create(&DialLabels { reason })
            .inc();
    }

    /// One more stream, as long as what is returned lives.
    pub(super) fn stream(&self) -> Stream<'_> {
        self.streams.inc();
        self.streams_open.inc();
        Stream(&self.streams_open)
    }
}

fn labels(server: &str) -> ServerLabels {
    ServerLabels {
        server: server.to_owned(),
    }
}

/// A stream that is open.
#[derive(Debug)]
pub(super) struct Stream<'a>(&'a Gauge);

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
