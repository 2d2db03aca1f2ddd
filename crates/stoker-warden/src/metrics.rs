//! What the tunnel has done, for Prometheus. It names no node and no address: the pod says whose it is.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// `Content-Type` of [`Metrics::text`].
pub const TEXT: &str = "text/plain; version=0.0.4";

/// Why a stream was not opened, by the answer to whoever asked for it.
const REASONS: [(StatusCode, &str); 5] = [
    (StatusCode::BAD_REQUEST, "BadQuestion"),
    (StatusCode::FORBIDDEN, "Forbidden"),
    (StatusCode::BAD_GATEWAY, "Unreachable"),
    (StatusCode::SERVICE_UNAVAILABLE, "NoAgent"),
    (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
];
const OTHER: &str = "Other";

/// Counters of one near end.
#[derive(Debug, Default)]
pub struct Metrics {
    up: AtomicU64,
    links: AtomicU64,
    streams: AtomicU64,
    streams_total: AtomicU64,
    failures: [AtomicU64; REASONS.len() + 1],
    pub(crate) to_nodes: AtomicU64,
    pub(crate) from_nodes: AtomicU64,
}

/// Counts as one until dropped.
#[derive(Debug)]
pub(crate) struct One<'a>(&'a AtomicU64);

impl<'a> One<'a> {
    fn of(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// The near end listens.
    pub(crate) fn up(&self) -> One<'_> {
        One::of(&self.up)
    }

    /// An agent is connected.
    pub(crate) fn link(&self) -> One<'_> {
        One::of(&self.links)
    }

    /// A stream is open.
    pub(crate) fn stream(&self) -> One<'_> {
        self.streams_total.fetch_add(1, Ordering::Relaxed);
        One::of(&self.streams)
    }

    /// A stream was refused.
    pub(crate) fn refused(&self, status: StatusCode) {
        let known = REASONS.iter().position(|(of, _)| *of == status);
        let index = known.unwrap_or(REASONS.len());
        if let Some(count) = self.failures.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them as Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(2048);
        let mut family = |name: &str, kind: &str, help: &str, values: &[(&str, &AtomicU64)]| {
            let name = format!("stoker_warden_tunnel_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let value = value.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |name, help, value| (name, help, [("", value)]);
        for (name, help, values) in [
            one(
                "up",
                "Whether the near end of the tunnel listens.",
                &self.up,
            ),
            one("links", "Connections of agents.", &self.links),
            one("streams_open", "Streams that are open.", &self.streams),
        ] {
            family(name, "gauge", help, &values);
        }
        let help = "Streams that were opened.";
        family(
            "streams_total",
            "counter",
            help,
            &[("", &self.streams_total)],
        );
        let reasons = REASONS.iter().map(|(_, reason)| *reason).chain([OTHER]);
        let reasons = reasons.map(|reason| format!("{{reason=\"{reason}\"}}"));
        let reasons: Vec<String> = reasons.collect();
        let failures = reasons.iter().map(String::as_str).zip(&self.failures);
        let failures: Vec<_> = failures.collect();
        let help = "Streams that were not opened.";
        family("failures_total", "counter", help, &failures);
        let bytes = [
            ("{direction=\"to_nodes\"}", &self.to_nodes),
            ("{direction=\"from_nodes\"}", &self.from_nodes),
        ];
        family("bytes_total", "counter", "Bytes passed on.", &bytes);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_counted_until_it_goes_and_what_was_for_good() {
        let metrics = Metrics::default();
        let _up = metrics.up();
        let (link, stream) = (metrics.link(), metrics.stream());
        let _second = metrics.stream();
        drop((link, stream));
        metrics.refused(StatusCode::SERVICE_UNAVAILABLE);
        metrics.refused(StatusCode::IM_A_TEAPOT);
        metrics.to_nodes.fetch_add(7, Ordering::Relaxed);
        let text = metrics.text();
        let values: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let of = |name: &str| format!("stoker_warden_tunnel_{name}");
        let expected = [
            "up 1",
            "links 0",
            "streams_open 1",
            "streams_total 2",
            "failures_total{reason=\"BadQuestion\"} 0",
            "failures_total{reason=\"Forbidden\"} 0",
            "failures_total{reason=\"Unreachable\"} 0",
            "failures_total{reason=\"NoAgent\"} 1",
            "failures_total{reason=\"Timeout\"} 0",
            "failures_total{reason=\"Other\"} 1",
            "bytes_total{direction=\"to_nodes\"} 7",
            "bytes_total{direction=\"from_nodes\"} 0",
        ];
        assert_eq!(values, expected.map(of));
    }
}
