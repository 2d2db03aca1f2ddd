//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;

const BEAT: Duration = Duration::from_secs(5);
/// This much silence means that the work hangs.
const SILENCE: Duration = Duration::from_mins(1);

/// What probes ask.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    last_beat: AtomicU64,
}

impl Health {
    /// The caches are filled, or this process stands by for the lease.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Runs `work`, beating as long as its task is not stuck: both are polled by turns in the same task, so a
    /// `work` that blocks or spins silences the beat.
    pub async fn alive_while<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => self.last_beat.store(unix_seconds(), Ordering::Relaxed),
            }
        }
    }

    fn is_alive(&self) -> bool {
        unix_seconds().saturating_sub(self.last_beat.load(Ordering::Relaxed)) < SILENCE.as_secs()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Serves the probes until the process ends.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_probes(address: SocketAddr, health: Arc<Health>) -> std::io::Result<()> {
    let app = Router::new()
        .route(
            "/healthz",
            get(|State(health): State<Arc<Health>>| async move { code(health.is_alive()) }),
        )
        .route(
            "/readyz",
            get(|State(health): State<Arc<Health>>| async move {
                code(health.ready.load(Ordering::Relaxed))
            }),
        )
        .with_state(health);
    axum::serve(tokio::net::TcpListener::bind(address).await?, app).await
}

/// Serves the metrics until the process ends.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_metrics(address: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(render))
        .with_state(metrics);
    axum::serve(tokio::net::TcpListener::bind(address).await?, app).await
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.render() {
        Ok(text) => (
            StatusCode::OK,
            [(
                CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        ),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            String::new(),
        ),
    }
}

fn code(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
