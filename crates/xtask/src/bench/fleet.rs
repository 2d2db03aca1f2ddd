//! A fleet that grows: what each further live tenant costs the operator.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use super::figures::{Table, count};
use super::ground::Ground;
use super::operator::{self, Metrics};
use super::tenant::Tenant;

/// Born at the same time. More would measure how two cores start API servers.
const WAVE: usize = 3;
/// Until what follows from a birth has happened and memory has settled.
const SETTLED: Duration = Duration::from_secs(20);
/// How long the whole fleet is left alone.
const IDLE: Duration = Duration::from_mins(1);

/// The fleet at one size.
struct Size {
    tenants: usize,
    /// Until the last of the wave was Ready.
    took: Duration,
    metrics: Metrics,
}

/// Tenants born in waves until there are that many, then a minute in which nothing happens.
pub(super) async fn measure(ground: &Ground, tenants: usize) -> Result<Vec<Table>> {
    // One tenant before: what the operator sets up once is not what a tenant costs.
    let warm = ground.live_tenants("warm", 1).await?;
    try_join_all(warm.into_iter().map(Tenant::remove)).await?;
    tokio::time::sleep(SETTLED).await;
    let mut sizes = vec![Size {
        tenants: 0,
        took: Duration::ZERO,
        metrics: operator::metrics(&ground.client).await?,
    }];
    let mut fleet = Vec::new();
    while fleet.len() < tenants {
        let wave = WAVE.min(tenants - fleet.len());
        let begun = Instant::now();
        let name = format!("fleet-{}", sizes.len());
        fleet.extend(ground.live_tenants(&name, wave).await?);
        let took = begun.elapsed();
        tokio::time::sleep(SETTLED).await;
        let metrics = operator::metrics(&ground.client).await?;
        let steps = ground.lab.steps();
        steps.note(format!(
            "{} live tenants: {:.0} KiB resident",
            fleet.len(),
            metrics.resident_bytes() / 1024.0
        ));
        sizes.push(Size {
            tenants: fleet.len(),
            took,
            metrics,
        });
    }
    tokio::time::sleep(IDLE).await;
    let idle = operator::metrics(&ground.client).await?;
    while !fleet.is_empty() {
        let wave = fleet.drain(..WAVE.min(fleet.len()));
        try_join_all(wave.map(Tenant::remove)).await?;
    }
    Ok(vec![growth(&sizes), cost(&sizes, &idle)])
}

fn growth(sizes: &[Size]) -> Table {
    let mut table = Table::new(
        format!("A fleet that grows by {WAVE} at once"),
        &[
            "live tenants",
            "wave Ready after, s",
            "operator CPU per tenant of the wave, ms",
            "resident, KiB",
            "of it anonymous, KiB",
        ],
    );
    for pair in sizes.windows(2) {
        let [before, size] = pair else { continue };
        let cpu = size.metrics.cpu_seconds() - before.metrics.cpu_seconds();
        let cpu = cpu * 1000.0 / count(size.tenants - before.tenants);
        table.row(&[
            &size.tenants.to_string(),
            &format!("{:.1}", size.took.as_secs_f64()),
            &format!("{cpu:.1}"),
            &format!("{:.0}", size.metrics.resident_bytes() / 1024.0),
            &format!("{:.0}", size.metrics.anonymous_bytes() / 1024.0),
        ]);
    }
    table
}

fn cost(sizes: &[Size], idle: &Metrics) -> Table {
    let mut table = Table::new(
        "The whole fleet: the operator's part",
        &["what", "figure", "goal"],
    );
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
        return table;
    };
    let tenants = count(last.tenants);
    let mut memory = |name, read: fn(&Metrics) -> f64, goal| {
        let grown = read(&last.metrics) - read(&first.metrics);
        table.row(&[name, &format!("{:.0}", grown / 1024.0 / tenants), goal]);
    };
    let all = "resident memory per live tenant, KiB";
    memory(all, Metrics::resident_bytes, "≤ 200");
    let own = "of it without the program's file, KiB";
    memory(own, Metrics::anonymous_bytes, "");
    let share = (idle.cpu_seconds() - last.metrics.cpu_seconds()) / IDLE.as_secs_f64();
    table.row(&["CPU when idle, %", &format!("{:.2}", share * 100.0), ""]);
    for side in ["Management", "Tenant"] {
        let requests = idle.requests_since(&last.metrics, side);
        let name = format!("idle writes, {}", side.to_lowercase());
        table.row(&[&name, &format!("{:.0}", requests.writes()), "0"]);
    }
    table
}
