//! When an API server first answers, asked the same way for both sides.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Asks `/readyz` without credentials at a pod's address until it answers 200; returns when it did.
///
/// # Errors
/// When it does not within `limit`.
pub(super) async fn answered(address: &str, every: Duration, limit: Duration) -> Result<Instant> {
    let url = format!("https://{address}:6443");
    let mut config = kube::Config::new(url.parse().context("the URL of a pod")?);
    // Only the time is of interest here.
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(2));
    let client = kube::Client::try_from(config)?;
    let begun = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let Err(error) = client.request_text(request).await else {
            return Ok(Instant::now());
        };
        ensure!(
            begun.elapsed() < limit,
            "{url}/readyz does not answer within {limit:?}: {error}"
        );
        tokio::time::sleep(every).await;
    }
}
