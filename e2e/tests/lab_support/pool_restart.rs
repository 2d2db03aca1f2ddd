//! The pool's etcd is killed under a running tenant that is being written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt as _};
use stoker_lab::pool;

use crate::pods::{restarts, uids};
use crate::world::{World, eventually};

/// Writes that must be acknowledged before the kill, and after the restart.
const ENOUGH: usize = 30;

pub(crate) async fn acknowledged_writes_survive_a_killed_pool(world: &World) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let before = observed(world, &tenant.name).await?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let writer = tokio::spawn(write(
        tenant.client.clone(),
        stop.clone(),
        Arc::clone(&written),
    ));
    let count = || {
        written
            .lock()
            .map_or(0, |written: std::sync::MutexGuard<'_, Vec<String>>| {
                written.len()
            })
    };
    eventually(
        Duration::from_secs(30),
        "writes before the kill",
        async || {
            ensure!(count() >= ENOUGH, "{} so far", count());
            Ok(())
        },
    )
    .await?;

    let host = world.lab.host(pool::HOST)?;
    let pid = host.run(["pidof", "etcd"]).await?;
    host.run(["kill", "-KILL", pid.trim()]).await?;
    let killed = Instant::now();
    let at_kill = count();
    eventually(
        Duration::from_mins(1),
        "writes after the restart",
        async || {
            ensure!(count() >= at_kill + ENOUGH, "{} so far", count() - at_kill);
            Ok(())
        },
    )
    .await?;
    println!(
        "{ENOUGH} more writes within {:.1} s of the kill",
        killed.elapsed().as_secs_f64()
    );
    stop.store(true, Ordering::Release);
    writer.await.context("the writer")?;

    let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client.clone());
    let there = maps
        .list_metadata(&ListParams::default().labels("e2e=pool-restart"))
        .await?;
    let there: std::collections::BTreeSet<_> =
        there.iter().map(kube::ResourceExt::name_any).collect();
    let written = written
        .lock()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?
        .clone();
    let lost: Vec<_> = written
        .iter()
        .filter(|name| !there.contains(*name))
        .collect();
    println!("{} writes acknowledged, {} lost", written.len(), lost.len());
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    world.ready(&tenant.name).await?;
    let after = observed(world, &tenant.name).await?;
    ensure!(
        before == after,
        "the restart changed the control plane: {before:#?}, then {after:#?}"
    );
    maps.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("e2e=pool-restart"),
    )
    .await
    .context("cleaning up")
    .map(drop)
}

/// What no restart of the pool may change: pods and their restarts, the Deployment, the Secrets.
async fn observed(world: &World, name: &str) -> Result<Vec<String>> {
    let pods = world.pods(name).await?;
    let mut seen = uids(&pods);
    seen.push(format!("{} restarts", restarts(&pods)));
    let deployments: Api<Deployment> = Api::namespaced(world.management.clone(), name);
    seen.push(format!(
        "Deployment generation {:?}",
        deployments.get(name).await?.metadata.generation
    ));
    let secrets: Api<Secret> = Api::namespaced(world.management.clone(), name);
    for secret in secrets.list_metadata(&ListParams::default()).await? {
        seen.push(format!(
            "{} {:?}",
            secret.name_any(),
            secret.resource_version()
        ));
    }
    Ok(seen)
}

/// Writes one object after the other and notes those that the API server acknowledged.
async fn write(client: Client, stop: Arc<AtomicBool>, written: Arc<std::sync::Mutex<Vec<String>>>) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let run = std::process::id();
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let name = format!("write-{run}-{number}");
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: Some([("e2e".to_owned(), "pool-restart".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let map = ConfigMap {
            metadata,
            ..ConfigMap::default()
        };
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => {
                if let Ok(mut written) = written.lock() {
                    written.push(name);
                }
            }
            // Refused or unanswered while the pool is away: not acknowledged, so it may be there or not.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
