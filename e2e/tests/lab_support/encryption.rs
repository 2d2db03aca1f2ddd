//! A live tenant with a joined worker gets another encryption of what it has stored: no container restarts, and its Secrets
//! can be read all the time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_lab::demo::TENANT;

use crate::conditions::find;
use crate::pods::{restarts, uids};
use crate::world::{Tenant, World};

/// Three times an API server looks at its files, once a minute.
const LIMIT: Duration = Duration::from_mins(6);

pub(crate) async fn what_a_live_tenant_has_stored_is_encrypted_otherwise_without_a_restart(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let before = world.pods(TENANT).await?;
    let marks = marks(world).await?;
    let provider = if marks.iter().all(|mark| mark.contains(":secretbox:")) {
        "aescbc"
    } else {
        "secretbox"
    };
    let begun = Instant::now();
    let generation = ask(world, &tenant, provider).await?;
    let secrets: Api<Secret> = Api::all(tenant.client.clone());
    loop {
        let all = secrets.list(&ListParams::default()).await;
        let all = all.context("reading every Secret")?;
        if let Some(one) = all.items.first() {
            let namespace = one.metadata.namespace.as_deref().unwrap_or_default();
            let name = one.metadata.name.as_deref().unwrap_or_default();
            let one: Api<Secret> = Api::namespaced(tenant.client.clone(), namespace);
            one.get_opt(name).await.context("reading a Secret")?;
        }
        let status = world.status(&tenant.name).await?;
        let found = find(&status.conditions, "EncryptionApplied");
        let is_current = |generation: Option<i64>| {
            found.is_some_and(|found| {
                found.reason == "Encrypted" && found.observed_generation == generation
            })
        };
        if is_current(generation) {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "{found:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{provider} after {:.0} s", begun.elapsed().as_secs_f64());
    let expected = format!("k8s:enc:{provider}:");
    let now = self::marks(world).await?;
    ensure!(
        now.iter().all(|mark| mark.starts_with(&expected)),
        "{now:?}"
    );
    let after = world.pods(TENANT).await?;
    ensure!(
        uids(&after) == uids(&before) && restarts(&after) == restarts(&before),
        "control-plane pods were replaced or restarted"
    );
    Ok(())
}

/// Asks for a provider; the generation of the spec that does.
async fn ask(world: &World, tenant: &Tenant, provider: &str) -> Result<Option<i64>> {
    let spec = json!({ "kubernetes": { "encryption": { "provider": provider } } });
    let patch = Patch::Merge(json!({ "spec": spec }));
    let tenants = world.tenants(&tenant.namespace);
    let params = PatchParams::default();
    let asked = tenants.patch(&tenant.name, &params, &patch).await?;
    Ok(asked.metadata.generation)
}

/// How the tenant's Secrets begin in the pool.
async fn marks(world: &World) -> Result<Vec<String>> {
    let prefix = format!("/{}/secrets/", world.storage_id(TENANT).await?);
    let answer = world
        .etcdctl(&["get", &prefix, "--prefix", "-w", "json"])
        .await?;
    let answer: Value = serde_json::from_str(&answer)?;
    let pairs = answer["kvs"].as_array().context("no Secret is stored")?;
    let head = |pair: &Value| {
        let value = STANDARD.decode(pair["value"].as_str()?).ok()?;
        Some(String::from_utf8_lossy(&value[..value.len().min(32)]).into_owned())
    };
    pairs
        .iter()
        .map(|pair| head(pair).context("a value"))
        .collect()
}
