//! Many at once, by hand and as tenants.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use stoker_lab::handwritten::Handwritten;

use super::birth::own_milliseconds;
use super::figures::{Spread, Table, count};
use super::ground::{Birth, Ground, Moment};
use super::machine::busy_seconds;
use super::operator::{self, Metrics, Requests};
use super::tenant::Tenant;

/// Rarer than at a single birth: the questions themselves cost CPU.
const POLL: Duration = Duration::from_millis(100);
/// Until memory has settled, and how long idle writes are counted.
const SETTLED: Duration = Duration::from_secs(30);

struct Crowd {
    births: Vec<Birth>,
    /// CPU time of the whole machine until the last was ready, seconds.
    cpu: f64,
    restarts: i32,
    busy: f64,
}

struct Tenants {
    crowd: Crowd,
    ready: Vec<Duration>,
    before: Metrics,
    at_ready: Metrics,
    settled: Metrics,
    idle: Idle,
}

struct Idle {
    writes_per_second: f64,
    connections: f64,
    cpu: f64,
}

/// First the hand-written ones, then as many tenants.
pub(super) async fn measure(ground: &Ground, tenants: usize) -> Result<Vec<Table>> {
    let by_hand = handwritten(ground, tenants).await?;
    // One tenant before: what the operator sets up once is not what a tenant costs.
    let warm = ground.live_tenants("warm", 1).await?;
    try_join_all(warm.into_iter().map(Tenant::remove)).await?;
    let ours = crowd_of_tenants(ground, tenants).await?;
    Ok(vec![
        times(tenants, &by_hand, &ours)?,
        cost(count(tenants), &ours),
    ])
}

async fn handwritten(ground: &Ground, tenants: usize) -> Result<Crowd> {
    let all = ground.handwritten("ten", tenants).await?;
    let busy = ground.quiet().await?;
    let (begun, cpu) = (Instant::now(), busy_seconds()?);
    let births = try_join_all(all.iter().map(|tenant| async move {
        tenant.apply().await?;
        ground.born(tenant.namespace(), begun, POLL).await
    }))
    .await?;
    let cpu = busy_seconds()? - cpu;
    let seen = all
        .iter()
        .map(|tenant| ground.sightings.of(tenant.namespace()));
    let restarts = seen.map(|seen| seen.restarts).sum();
    try_join_all(all.into_iter().map(Handwritten::remove)).await?;
    Ok(Crowd {
        births,
        cpu,
        restarts,
        busy,
    })
}

async fn crowd_of_tenants(ground: &Ground, tenants: usize) -> Result<Tenants> {
    let names: Vec<String> = (1..=tenants)
        .map(|number| format!("ten-{number}"))
        .collect();
    let all = try_join_all(names.iter().map(|name| Tenant::prepare(ground, name))).await?;
    let connections = ground.pool_connections().await?;
    let busy = ground.quiet().await?;
    let before = operator::metrics(&ground.client).await?;
    let (begun, cpu) = (Instant::now(), busy_seconds()?);
    let born = try_join_all(all.iter().map(|tenant| async move {
        tenant.apply().await?;
        let (birth, ready) = tokio::try_join!(
            ground.born(tenant.namespace(), begun, POLL),
            ground.ready(tenant)
        )?;
        anyhow::Ok((birth, ready.duration_since(begun)))
    }))
    .await?;
    let cpu = busy_seconds()? - cpu;
    let at_ready = operator::metrics(&ground.client).await?;
    let (births, ready) = born.into_iter().unzip();
    tokio::time::sleep(SETTLED).await;
    let settled = operator::metrics(&ground.client).await?;
    let idle = idle(ground, connections, &settled).await?;
    let seen = all
        .iter()
        .map(|tenant| ground.sightings.of(tenant.namespace()));
    let restarts = seen.map(|seen| seen.restarts).sum();
    try_join_all(all.into_iter().map(Tenant::remove)).await?;
    Ok(Tenants {
        crowd: Crowd {
            births,
            cpu,
            restarts,
            busy,
        },
        ready,
        before,
        at_ready,
        settled,
        idle,
    })
}

/// What all of them do together when they are left alone.
async fn idle(ground: &Ground, connections: usize, settled: &Metrics) -> Result<Idle> {
    let (begun, revision) = (Instant::now(), ground.pool_revision().await?);
    tokio::time::sleep(SETTLED).await;
    let writes = ground.pool_revision().await? - revision;
    let after = operator::metrics(&ground.client).await?;
    let open = ground.pool_connections().await?.saturating_sub(connections);
    Ok(Idle {
        writes_per_second: writes / begun.elapsed().as_secs_f64(),
        connections: count(open),
        cpu: after.cpu_seconds() - settled.cpu_seconds(),
    })
}

fn times(tenants: usize, by_hand: &Crowd, ours: &Tenants) -> Result<Table> {
    let title = format!(
        "{tenants} at once: CPUs busy with other things before: {:.2} by hand, {:.2} Stoker",
        by_hand.busy, ours.crowd.busy
    );
    let mut table = Table::new(
        title,
        &["seconds after apply", "by hand", "Stoker", "ratio", "goal"],
    );
    let columns: [(&str, Moment); 3] = [
        ("last Deployment seen", |birth| birth.deployment),
        ("last /readyz answers", |birth| birth.answered),
        ("last pod ready", |birth| birth.pod_ready),
    ];
    for (name, read) in columns {
        let hand = Spread::of_seconds(by_hand.births.iter().map(read))?.max;
        let us = Spread::of_seconds(ours.crowd.births.iter().map(read))?.max;
        let (hand_text, us_text) = (format!("{hand:.1}"), format!("{us:.1}"));
        table.row(&[name, &hand_text, &us_text, &format!("{:.2}", us / hand), ""]);
    }
    let ready = Spread::of_seconds(ours.ready.iter().copied())?;
    let answered = Spread::of_seconds(by_hand.births.iter().map(|birth| birth.answered))?.max;
    let pods = Spread::of_seconds(by_hand.births.iter().map(|birth| birth.pod_ready))?.max;
    for (name, hand) in [
        ("all Ready, to all pods ready by hand", pods),
        ("all Ready, to all /readyz by hand", answered),
    ] {
        let (hand_text, us_text) = (format!("{hand:.1}"), format!("{:.1}", ready.max));
        let ratio = format!("{:.2}", ready.max / hand);
        table.row(&[name, &hand_text, &us_text, &ratio, "≤ 1.25"]);
    }
    let restarts = [by_hand.restarts, ours.crowd.restarts].map(|count| count.to_string());
    table.row(&["container restarts", &restarts[0], &restarts[1], "", "0"]);
    let cpu = [by_hand.cpu, ours.crowd.cpu].map(|seconds| format!("{seconds:.1}"));
    let ratio = format!("{:.2}", ours.crowd.cpu / by_hand.cpu);
    table.row(&[
        "CPU s of the machine until then",
        &cpu[0],
        &cpu[1],
        &ratio,
        "",
    ]);
    Ok(table)
}

fn memory(table: &mut Table, tenants: f64, before: &Metrics, after: &Metrics) {
    let mut row = |name, read: fn(&Metrics) -> f64, goal| {
        let [before, after] = [before, after].map(|metrics| read(metrics) / 1024.0);
        let each = (after - before) / tenants;
        let text = format!("{each:.0} ({before:.0} before, {after:.0} after)");
        table.row(&[name, &text, goal]);
    };
    let all = "resident memory per live tenant, KiB";
    row(all, Metrics::resident_bytes, "≤ 200");
    let own = "of it without the program's file, KiB";
    row(own, Metrics::anonymous_bytes, "");
}

fn cost(tenants: f64, ours: &Tenants) -> Table {
    let title = format!("{tenants} at once: the operator's part");
    let mut table = Table::new(title, &["what", "figure", "goal"]);
    let Tenants {
        before,
        at_ready,
        settled,
        idle,
        ..
    } = ours;
    let spent = at_ready.cpu_seconds() - before.cpu_seconds();
    let share = spent / ours.crowd.cpu * 100.0;
    table.row(&["share of all CPU spent, %", &format!("{share:.1}"), "≤ 5"]);
    let spent = settled.cpu_since(before) / tenants;
    table.row(&["CPU per tenant, ms", &format!("{spent:.1}"), "≤ 20"]);
    let own = own_milliseconds(settled, before);
    table.row(&[
        "event to Deployment applied, mean ms",
        &format!("{own:.0}"),
        "≤ 500",
    ]);
    memory(&mut table, tenants, before, settled);
    let management = settled.requests_since(before, "Management");
    let inside = settled.requests_since(before, "Tenant");
    let each = |requests: &Requests| format!("{:.1}", requests.total() / tenants);
    table.row(&[
        "requests to the management API per tenant",
        &each(&management),
        "≤ 40",
    ]);
    table.row(&[
        "requests to the tenant's API per tenant",
        &each(&inside),
        "",
    ]);
    let writes = idle.writes_per_second / tenants;
    table.row(&["idle etcd writes/s per tenant", &format!("{writes:.2}"), ""]);
    let connections = idle.connections / tenants;
    table.row(&[
        "etcd connections per tenant",
        &format!("{connections:.1}"),
        "",
    ]);
    let cpu = idle.cpu / SETTLED.as_secs_f64() * 100.0;
    table.row(&["idle CPU of the operator, %", &format!("{cpu:.2}"), ""]);
    table.row(&[
        "management requests per tenant",
        &management.text(tenants),
        "",
    ]);
    table.row(&["tenant requests per tenant", &inside.text(tenants), ""]);
    table
}
