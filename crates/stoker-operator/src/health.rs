//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::tenant::state::lock;

const BEAT: Duration = Duration::from_secs(5);
/// This much silence means that the work hangs.
const SILENCE: Duration = Duration::from_mins(1);

/// What probes ask.
#[derive(Debug)]
pub struct Health {
    ready: AtomicBool,
    /// By the monotonic clock: a corrected wall clock neither kills the process nor keeps a stuck one alive.
    last_beat: Mutex<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            ready: AtomicBool::default(),
            last_beat: Mutex::new(Instant::now()),
        }
    }
}

impl Health {
    /// Ready is who stands by for the lease, and who leads once its caches are filled.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Runs `work`, beating as long as its task is not stuck: both are polled by turns in the same task, so a
    /// `work` that blocks or spins silences the beat.
    pub async fn alive_while<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => *lock(&self.last_beat) = Instant::now(),
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn is_alive(&self) -> bool {
        lock(&self.last_beat).elapsed() < SILENCE
    }
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
            get(|State(health): State<Arc<Health>>| async move { code(health.is_ready()) }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_no_longer_beats_is_dead_after_a_minute() {
        let health = Health::default();
        health.alive_while(tokio::time::sleep(SILENCE * 10)).await;
        assert!(health.is_alive());
        tokio::time::advance(SILENCE / 2).await;
        assert!(health.is_alive());
        tokio::time::advance(SILENCE / 2 + BEAT).await;
        assert!(!health.is_alive());
    }
}
