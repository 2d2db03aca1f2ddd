//! One tenant's birth beside a hand-written one.

use std::time::{Duration, Instant};

use anyhow::Result;
use stoker_lab::handwritten::Handwritten;

use super::figures::{Spread, Table, mean};
use super::ground::{Birth, Ground, Moment};
use super::operator::{self, Metrics, Requests};
use super::tenant::Tenant;

const POLL: Duration = Duration::from_millis(20);
/// Until the last writes that a birth causes are done.
const AFTERMATH: Duration = Duration::from_secs(3);
/// What the operator takes in it, long after the birth before, is what it takes anyway.
const REST: Duration = Duration::from_secs(40);
const BEFORE_REST: Duration = Duration::from_secs(20);

struct TenantBirth {
    birth: Birth,
    /// CPUs busy with other things just before.
    busy: f64,
    ready: Duration,
    own: f64,
    /// CPU time from the apply until after the aftermath, milliseconds, and how long that was.
    cpu: f64,
    lasted: Duration,
    requests: Requests,
    inside: Requests,
    restarts: i32,
    replica_sets: usize,
}

/// Rounds that alternate, each alone on the machine.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Vec<Table>> {
    // Fills the caches of the machine for both sides alike.
    handwritten(ground, 0).await?;
    tenant(ground, 0).await?;
    let anyway = at_rest(ground).await?;
    let (mut by_hand, mut tenants, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (birth, before) = handwritten(ground, round).await?;
        let born = tenant(ground, round).await?;
        by_hand.push(birth);
        busy.extend([before, born.busy]);
        ground.lab.steps().note(format!(
            "round {round}: /readyz after {:.2} s by hand, {:.2} s as a tenant, Ready after {:.2} s",
            by_hand[round - 1].answered.as_secs_f64(),
            born.birth.answered.as_secs_f64(),
            born.ready.as_secs_f64(),
        ));
        tenants.push(born);
    }
    let title = format!(
        "Birth: median (min to max) of {rounds} rounds, CPUs busy with other things before each: {}",
        Spread::of(busy)?.text(2)
    );
    Ok(vec![
        times(title, &by_hand, &tenants)?,
        cost(&tenants, anyway)?,
    ])
}

async fn handwritten(ground: &Ground, round: usize) -> Result<(Birth, f64)> {
    let tenant = Handwritten::prepare(&ground.lab, &format!("birth-{round}")).await?;
    let busy = ground.quiet().await?;
    let begun = Instant::now();
    tenant.apply().await?;
    let birth = ground.born(tenant.namespace(), begun, POLL).await?;
    tenant.remove().await?;
    Ok((birth, busy))
}

async fn tenant(ground: &Ground, round: usize) -> Result<TenantBirth> {
    let tenant = Tenant::prepare(ground, &format!("birth-{round}")).await?;
    let busy = ground.quiet().await?;
    let before = operator::metrics(&ground.client).await?;
    let begun = Instant::now();
    tenant.apply().await?;
    let (birth, ready) = tokio::try_join!(
        ground.born(tenant.namespace(), begun, POLL),
        ground.ready(&tenant)
    )?;
    tokio::time::sleep(AFTERMATH).await;
    let after = operator::metrics(&ground.client).await?;
    let lasted = begun.elapsed();
    let seen = ground.sightings.of(tenant.namespace());
    tenant.remove().await?;
    Ok(TenantBirth {
        birth,
        busy,
        ready: ready.duration_since(begun),
        own: own_milliseconds(&after, &before),
        cpu: after.cpu_since(&before),
        lasted,
        requests: after.requests_since(&before, "Management"),
        inside: after.requests_since(&before, "Tenant"),
        restarts: seen.restarts,
        replica_sets: seen.replica_sets.len(),
    })
}

/// From the first sight of a tenant to its Deployment applied; the mean when there were several.
pub(super) fn own_milliseconds(after: &Metrics, before: &Metrics) -> f64 {
    after
        .step_since(before, "Birth")
        .map_or(f64::NAN, |seconds| seconds * 1000.0)
}

fn times(title: String, by_hand: &[Birth], tenants: &[TenantBirth]) -> Result<Table> {
    let mut table = Table::new(
        title,
        &["seconds after apply", "by hand", "Stoker", "ratio", "goal"],
    );
    let columns: [(&str, Moment, &str); 3] = [
        ("Deployment seen", |birth| birth.deployment, ""),
        ("/readyz answers", |birth| birth.answered, "≤ 1.15"),
        ("pod ready", |birth| birth.pod_ready, ""),
    ];
    for (name, read, goal) in columns {
        let hand = Spread::of_seconds(by_hand.iter().map(read))?;
        let ours = Spread::of_seconds(tenants.iter().map(|tenant| read(&tenant.birth)))?;
        let ratio = format!("{:.2}", ours.median / hand.median);
        table.row(&[name, &hand.text(2), &ours.text(2), &ratio, goal]);
    }
    let hand = Spread::of_seconds(by_hand.iter().map(|birth| birth.answered))?;
    let ready = Spread::of_seconds(tenants.iter().map(|tenant| tenant.ready))?;
    let ratio = format!("{:.2}", ready.median / hand.median);
    table.row(&[
        "status Ready (to /readyz by hand)",
        "",
        &ready.text(2),
        &ratio,
        "",
    ]);
    Ok(table)
}

/// CPU time of the operator without a birth, milliseconds per second.
async fn at_rest(ground: &Ground) -> Result<f64> {
    tokio::time::sleep(BEFORE_REST).await;
    let before = operator::metrics(&ground.client).await?;
    tokio::time::sleep(REST).await;
    let after = operator::metrics(&ground.client).await?;
    Ok(after.cpu_since(&before) / REST.as_secs_f64())
}

/// `anyway` is what the operator takes [`at_rest`].
fn cost(tenants: &[TenantBirth], anyway: f64) -> Result<Table> {
    let mut table = Table::new(
        "Birth: the operator's part, per tenant",
        &["what", "figure", "goal"],
    );
    let own = Spread::of(tenants.iter().map(|tenant| tenant.own))?;
    table.row(&["event to Deployment applied, ms", &own.text(0), "≤ 150"]);
    let cpu: Vec<f64> = tenants.iter().map(|tenant| tenant.cpu).collect();
    let text = format!("mean {:.1}, {}", mean(&cpu), Spread::of(cpu)?.text(1));
    table.row(&["CPU of the operator, ms", &text, ""]);
    let own: Vec<f64> = tenants
        .iter()
        .map(|tenant| tenant.cpu - anyway * tenant.lasted.as_secs_f64())
        .collect();
    let text = format!("mean {:.1}, {}", mean(&own), Spread::of(own)?.text(1));
    let title = format!("of it for the tenant: less the {anyway:.2} ms/s that it takes anyway");
    table.row(&[&title, &text, "≤ 20"]);
    let requests = Spread::of(tenants.iter().map(|tenant| tenant.requests.total()))?;
    table.row(&["requests to the management API", &requests.text(0), "≤ 40"]);
    let inside = Spread::of(tenants.iter().map(|tenant| tenant.inside.total()))?;
    table.row(&["requests to the tenant's API", &inside.text(0), ""]);
    let restarts = tenants.iter().map(|tenant| tenant.restarts).sum::<i32>();
    table.row(&["container restarts, all rounds", &restarts.to_string(), "0"]);
    let sets = tenants.iter().map(|tenant| tenant.replica_sets).max();
    table.row(&[
        "ReplicaSets, most",
        &sets.unwrap_or_default().to_string(),
        "1",
    ]);
    if let Some(last) = tenants.last() {
        table.row(&[
            "management requests, last round",
            &last.requests.text(1.0),
            "",
        ]);
        table.row(&["tenant requests, last round", &last.inside.text(1.0), ""]);
    }
    Ok(table)
}
