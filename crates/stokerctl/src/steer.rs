//! The changes that are made daily: replicas, sleep and waking, pause, resume.

use anyhow::{Result, bail};
use http::Request;
use jiff::fmt::rfc2822;
use jiff::{Timestamp, ToSpan as _};
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use stoker_api::labels::PAUSED;
use stoker_api::v1alpha1::TenantControlPlane;

use crate::connect::{Connection, Target, explain};
use crate::print::out;

/// Sets the replicas through the scale subresource, for which a right of its own exists.
///
/// # Errors
/// It is refused.
pub(crate) async fn scale(target: &Target, tenant: &str, replicas: u16) -> Result<()> {
    let connection = target.connect().await?;
    connection.tenant(tenant).await?;
    let patch = json!({ "spec": { "replicas": replicas } });
    let tenants = tenants(&connection);
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let scaled = tenants.patch_scale(tenant, &params, &patch).await;
    scaled.map_err(explain)?;
    out(&format!("{}\n", scaled_to(tenant, replicas)))
}

fn scaled_to(tenant: &str, replicas: u16) -> String {
    match replicas {
        0 => format!(
            "{tenant} goes to sleep: its pods end, data and keys are kept; `stokerctl scale {tenant} 2` wakes it"
        ),
        1 => format!("{tenant} gets 1 replica: its API is away while that one is replaced"),
        _ => format!("{tenant} gets {replicas} replicas"),
    }
}

/// Puts the tenant to sleep now.
///
/// # Errors
/// It is refused.
pub(crate) async fn sleep(target: &Target, tenant: &str) -> Result<()> {
    let connection = target.connect().await?;
    let found = connection.tenant(tenant).await?;
    say_when(&connection, tenant, &found, "sleepAt").await?;
    let wakes = found
        .spec
        .hibernation
        .is_none_or(|plan| plan.wake_on_connection);
    let connect = if wakes {
        "a connection through the gateway or "
    } else {
        ""
    };
    out(&format!(
        "{tenant} goes to sleep: its pods end, data and keys are kept; {connect}`stokerctl wake {tenant}` wakes it\n"
    ))
}

/// Wakes the tenant.
///
/// # Errors
/// It is refused, or has no pods to wake.
pub(crate) async fn wake(target: &Target, tenant: &str) -> Result<()> {
    let connection = target.connect().await?;
    let found = connection.tenant(tenant).await?;
    if found.spec.control_plane.deployment.replicas == 0 {
        bail!("{tenant} has 0 replicas: `stokerctl scale {tenant} 2` gives it some");
    }
    say_when(&connection, tenant, &found, "wakeAt").await?;
    out(&format!("{tenant} wakes, until its next time to sleep\n"))
}

/// The last of all times that have come counts, by the clock of the management cluster.
async fn say_when(
    connection: &Connection,
    tenant: &str,
    found: &TenantControlPlane,
    field: &str,
) -> Result<()> {
    let date = date(&connection.client).await;
    let status = found.status.as_ref();
    let hibernation = status.and_then(|status| status.hibernation.as_ref());
    let since = hibernation.map(|hibernation| hibernation.since.0);
    let now = format!("{:.0}", when(date.as_deref(), since, Timestamp::now()));
    let patch = Patch::Merge(json!({ "spec": { "hibernation": { field: now } } }));
    let patched = tenants(connection)
        .patch(tenant, &PatchParams::default(), &patch)
        .await;
    patched.map(drop).map_err(explain)
}

/// The API server's time, as it heads every answer; `None` where something on the way leaves it out.
async fn date(client: &Client) -> Option<String> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let answer = client.send(request).await.ok()?;
    let date = answer.headers().get("date")?.to_str().ok()?;
    Some(date.to_owned())
}

/// Now, by the `date` of an API server if there is one, and later than what was last recorded: else it would do nothing.
fn when(date: Option<&str>, since: Option<Timestamp>, own: Timestamp) -> Timestamp {
    let date = date.and_then(|date| rfc2822::parse(date).ok());
    let now = date.map_or(own, |date| date.timestamp());
    let after = since.and_then(|since| since.checked_add(1.second()).ok());
    after.map_or(now, |after| after.max(now))
}

/// Has the operator leave the tenant alone.
///
/// # Errors
/// It is refused.
pub(crate) async fn pause(target: &Target, tenant: &str, reason: &str) -> Result<()> {
    let connection = target.connect().await?;
    connection.tenant(tenant).await?;
    annotate(&connection, tenant, json!(reason)).await?;
    out(&format!(
        "{tenant} is paused: nothing of it is healed, renewed or changed until `stokerctl resume {tenant}`\n"
    ))
}

/// Has the operator keep up the tenant again.
///
/// # Errors
/// It is refused.
pub(crate) async fn resume(target: &Target, tenant: &str) -> Result<()> {
    let connection = target.connect().await?;
    connection.tenant(tenant).await?;
    annotate(&connection, tenant, Value::Null).await?;
    out(&format!("{tenant} is kept up again\n"))
}

async fn annotate(connection: &Connection, tenant: &str, value: Value) -> Result<()> {
    let patch = json!({ "metadata": { "annotations": { PAUSED: value } } });
    let tenants = tenants(connection);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let patched = tenants.patch(tenant, &params, &patch).await;
    patched.map(drop).map_err(explain)
}

fn tenants(connection: &Connection) -> Api<TenantControlPlane> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_whoever_asks_does_not_count() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let slow = at("2026-01-05T11:00:00Z");
        let noon = at("2026-01-05T12:00:00Z");
        let date = Some("Mon, 05 Jan 2026 12:00:00 GMT");
        assert_eq!(when(date, None, slow), noon);
        assert_eq!(when(date, Some(slow), slow), noon);
        // It woke in this very second.
        assert_eq!(when(date, Some(noon), slow), at("2026-01-05T12:00:01Z"));
        assert_eq!(when(None, Some(noon), slow), at("2026-01-05T12:00:01Z"));
        assert_eq!(when(None, None, slow), slow);
    }
}
