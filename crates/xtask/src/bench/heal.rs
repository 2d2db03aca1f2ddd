//! A Deployment deleted inside a tenant comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};

use super::figures::{Spread, Table};
use super::ground::{Ground, LIMIT};
use super::operator;
use super::tenant::Tenant;

const POLL: Duration = Duration::from_millis(5);
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(2);

/// Deletes `CoreDNS` as the tenant's administrator, again and again.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Vec<Table>> {
    let live = ground.live_tenants("heal", 1).await?;
    let namespace = live.first().context("a tenant was made")?.namespace();
    let seen = ground.sightings.of(namespace);
    let address = seen.address.context("the tenant's pod has no address")?;
    let administrator = live[0].administrator(&address).await?;
    let deployments = Api::<Deployment>::namespaced(administrator, "kube-system");
    let (mut busy, mut times) = (Vec::new(), Vec::new());
    let before = operator::metrics(&ground.client).await?;
    for _ in 0..rounds {
        tokio::time::sleep(PAUSE).await;
        busy.push(ground.quiet().await?);
        times.push(heal(&deployments).await?.as_secs_f64() * 1000.0);
    }
    let after = operator::metrics(&ground.client).await?;
    try_join_all(live.into_iter().map(Tenant::remove)).await?;

    let title = format!(
        "Healing: CoreDNS deleted inside a tenant, {rounds} rounds, CPUs busy with other things: {}",
        Spread::of(busy)?.text(2)
    );
    let mut table = Table::new(title, &["what", "figure", "goal"]);
    table.row(&["deleted to back, ms", &Spread::of(times)?.text(0), "≤ 2000"]);
    let inside = after.requests_since(&before, "Tenant");
    table.row(&["requests inside, all rounds", &inside.text(1.0), ""]);
    Ok(vec![table])
}

async fn heal(deployments: &Api<Deployment>) -> Result<Duration> {
    let name = "coredns";
    let old = deployments.get(name).await?.uid();
    let begun = Instant::now();
    deployments.delete(name, &DeleteParams::default()).await?;
    loop {
        let new = deployments.get_opt(name).await?;
        if new.is_some_and(|new| new.uid() != old) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < LIMIT, "{name} does not come back");
        tokio::time::sleep(POLL).await;
    }
}
