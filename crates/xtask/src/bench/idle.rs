//! What the operator does while nothing happens.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;

use super::figures::Table;
use super::ground::Ground;
use super::operator;
use super::tenant::Tenant;

/// After a birth, until everything that follows from it has happened.
const SETTLED: Duration = Duration::from_secs(15);

/// Leaves live tenants alone for that long.
pub(super) async fn measure(ground: &Ground, tenants: usize, seconds: u64) -> Result<Vec<Table>> {
    let live = ground.live_tenants("idle", tenants).await?;
    tokio::time::sleep(SETTLED).await;
    let before = operator::metrics(&ground.client).await?;
    let steps = ground.lab.steps();
    let idle = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(())
    };
    steps.step(format!("{tenants} idle tenants"), idle).await?;
    let after = operator::metrics(&ground.client).await?;
    try_join_all(live.into_iter().map(Tenant::remove)).await?;

    let title = format!("Idle: {tenants} live tenants left alone for {seconds} s");
    let mut table = Table::new(title, &["what", "figure", "goal"]);
    for side in ["Management", "Tenant"] {
        let requests = after.requests_since(&before, side);
        let name = side.to_lowercase();
        let writes = format!("{:.0}", requests.writes());
        table.row(&[&format!("writes, {name}"), &writes, "0"]);
        table.row(&[&format!("requests, {name}"), &requests.text(1.0), ""]);
        if side == "Management" {
            let lease = format!("{:.0}", requests.lease());
            table.row(&["requests for the lease", &lease, ""]);
        }
    }
    let passes = after.steps_since(&before, "Apply");
    table.row(&[
        "passes that applied something",
        &format!("{passes:.0}"),
        "0",
    ]);
    let cpu = after.cpu_since(&before);
    table.row(&["CPU of the operator, ms", &format!("{cpu:.0}"), ""]);
    let resident = (after.resident_bytes() - before.resident_bytes()) / 1024.0;
    table.row(&[
        "resident memory, change in KiB",
        &format!("{resident:.0}"),
        "",
    ]);
    Ok(vec![table])
}
