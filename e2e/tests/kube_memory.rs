//! What a live tenant costs the operator in memory: a client with eleven open watches.

#![expect(clippy::unwrap_used, reason = "what these functions do is test")]

#[path = "kube_support/endpoint.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod endpoint;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use endpoint::{connections_to, eleven_kinds, endpoint, watch_ours};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use stoker_kube::{Desired, Ledger, Writer, tenant_client, watch_owned};
use stoker_lab::bare::BareApiServer;

/// Enough for the process' own size and the allocator's slack to vanish.
const TENANTS: usize = 100;
/// Objects of a tenant that the operator keeps in its ledger.
const OBJECTS: usize = 25;
/// The budget of the issue for everything; this test sees clients, watches and ledgers.
const BUDGET_KIB: usize = 200;

/// Resident memory of this process in KiB.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .context("no VmRSS")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?)
}

/// CPU time of this process so far.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .context("no fields")?
        .split_whitespace()
        .collect();
    // utime and stime, in ticks of 10 ms
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn objects() -> Vec<Desired> {
    let object = |number: usize| -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("object-{number}"), "namespace": "default",
                "labels": {
                    "e2e": "kube", "app.kubernetes.io/name": "tenant", "app.kubernetes.io/part-of": "stoker",
                    "app.kubernetes.io/managed-by": "stoker", "app.kubernetes.io/instance": "demo",
                },
            },
            "data": {"text": "x".repeat(2000)},
        }))
        .unwrap()
    };
    (0..OBJECTS)
        .map(|number| Desired::of(&object(number)).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_eleven_watches_fits_its_budget() -> Result<()> {
    let server = BareApiServer::start().await?;
    let endpoint = endpoint(&server)?;
    let counter: stoker_kube::RequestCounter = Arc::new(|_, _, _| {});
    // Everything that is made once per process is made before the first look.
    let mut kept = vec![open(&endpoint, &counter).await?];
    let before = resident()?;
    let (begun, cpu_before) = (Instant::now(), cpu()?);
    for _ in 0..TENANTS {
        kept.push(open(&endpoint, &counter).await?);
    }
    let opened = begun.elapsed() / u32::try_from(TENANTS)?;
    let cpu = cpu()?.saturating_sub(cpu_before) / u32::try_from(TENANTS)?;
    let after = resident()?;
    assert_eq!(
        connections_to(endpoint.address)?,
        TENANTS + 1,
        "one connection each"
    );

    // Changes pass through all of them, as events do in the long run.
    let writer = Writer::new(kept[0].0.clone(), "e2e-memory");
    for round in 0..5 {
        let object: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "changing", "namespace": "default", "labels": {"e2e": "kube"}},
            "data": {"round": round.to_string()},
        }))?;
        writer.apply(&Desired::of(&object)?).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let used = resident()?;
    for (_, _, task) in &kept {
        task.abort();
    }
    let each = |kib: usize| kib.saturating_sub(before) / TENANTS;
    println!(
        "per tenant: {} KiB when opened, {} KiB after events; opened in {opened:?} with {cpu:?} of CPU (25 \
         applies, 11 lists, 11 watches); {} KiB before",
        each(after),
        each(used),
        before,
    );
    assert!(each(used) <= BUDGET_KIB, "{} KiB per tenant", each(used));
    Ok(())
}

type Tenant = (kube::Client, Arc<Ledger>, tokio::task::JoinHandle<()>);

/// As the operator does for a live tenant: a client, a ledger, a task that follows the watches.
async fn open(
    endpoint: &stoker_kube::TenantEndpoint,
    counter: &stoker_kube::RequestCounter,
) -> Result<Tenant> {
    let client = tenant_client(endpoint, Arc::clone(counter))?;
    let ledger = Arc::new(Ledger::new());
    Writer::new(client.clone(), "e2e-memory")
        .apply_all(objects(), &ledger, 8)
        .await?;
    let mut changes = Box::pin(watch_owned(client.clone(), watch_ours(eleven_kinds())));
    // All objects are reported before this goes on: the lists are done.
    for _ in 0..OBJECTS {
        changes.next().await.context("the watch ended")??;
    }
    let noted = Arc::clone(&ledger);
    let task = tokio::spawn(async move {
        while let Some(change) = changes.next().await {
            noted.observe(&change.unwrap());
        }
    });
    Ok((client, ledger, task))
}
