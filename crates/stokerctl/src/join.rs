//! How machines get into a tenant: a `JoinToken`, and the line that uses it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_api::v1alpha1::{JoinToken, JoinTokenStatus};

use crate::cli::JoinArguments;
use crate::connect::{Target, explain};
use crate::print::{note, out};

/// A person waits; a token whose tenant sleeps would be waited for all night.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// As the API says, seconds.
const LENGTHS: std::ops::RangeInclusive<i64> = 60..=604_800;

/// Makes a token and prints what to type on the machines.
///
/// # Errors
/// The tenant is not there, its API server is not up, or the token may not be made.
pub(crate) async fn join(target: &Target, wanted: &JoinArguments) -> Result<()> {
    ensure!(
        LENGTHS.contains(&wanted.ttl.seconds),
        "--ttl: from 1m to 7d; let machines that come later join by another token"
    );
    let connection = target.connect().await?;
    let tenant = connection.tenant(&wanted.tenant).await?.name_any();
    let namespace = &connection.namespace;
    let tokens: Api<JoinToken> = Api::namespaced(connection.client.clone(), namespace);
    let token = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
        "metadata": { "generateName": format!("{tenant}-") },
        "spec": {
            "tenantControlPlane": tenant,
            "expirationSeconds": wanted.ttl.seconds,
            "uses": wanted.uses,
        },
    }))?;
    let made = tokens.create(&PostParams::default(), &token).await;
    let name = made.map_err(explain)?.name_any();
    let revoke = format!("kubectl -n {namespace} delete jointoken {name}");
    let entry = if wanted.kubeadm { "kubeadm" } else { "join" };
    let read = async {
        let status = usable(&tokens, &name).await?;
        let secret = status.secret_name.context("the token has no Secret")?;
        let secrets: Api<Secret> = Api::namespaced(connection.client.clone(), namespace);
        let secret = secrets.get(&secret).await.map_err(explain)?;
        let line = secret.data.and_then(|mut data| data.remove(entry));
        let line = line.with_context(|| format!("its Secret has no `{entry}`"))?;
        anyhow::Ok((status.expiration_time, line))
    };
    let (end, line) = read.await.with_context(|| {
        format!("the JoinToken {name} is made and stays; `{revoke}` revokes it")
    })?;
    let machines = match wanted.uses {
        1 => "one machine".to_owned(),
        uses => format!("{uses} machines"),
    };
    let end = end.map_or(Timestamp::MAX, |end| end.0);
    note(&format!(
        "as root, on {machines}, until {end:.0}; `{revoke}` revokes it"
    ));
    out(&format!("{}\n", String::from_utf8_lossy(&line.0).trim()))
}

/// Waits until machines can join by it.
async fn usable(tokens: &Api<JoinToken>, name: &str) -> Result<JoinTokenStatus> {
    let begun = Instant::now();
    loop {
        let status = tokens.get(name).await.map_err(explain)?.status;
        let status = status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .find(|found| found.type_ == "Ready");
        if ready.is_some_and(|ready| ready.status == "True") {
            return Ok(status);
        }
        if begun.elapsed() > PATIENCE {
            let why = ready.map_or("the operator has not looked at it", |ready| &ready.message);
            bail!("no machine can join by it yet: {why}. Its Secret has the line once it is Ready");
        }
        tokio::time::sleep(POLL).await;
    }
}
