//! Authorities that rotate: what the tenant publishes takes the place of what this machine believes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::access::{Who, client};
use super::discover::cluster_info;
use super::join::authorities;
use super::paths::{AUTHORITY, Membership, write};
use super::service;

/// Since the kubelet last started there are other authorities: it is to be restarted, however long that fails.
const RESTART_DUE: &str = "/var/lib/stoker-node/restart-due";

/// Looks once; true when the kubelet believes others now.
pub(crate) async fn authorities_once(member: &Membership) -> Result<bool> {
    let looked = look(member).await;
    // It reads its own way to the API server at its start alone. Pods run on.
    let restarted = restart_if_due(Path::new(RESTART_DUE), service::restart_kubelet).await?;
    looked.map(|()| restarted)
}

/// Who is asked is believed by the authorities of before, so that nobody else can bring in new ones.
async fn look(member: &Membership) -> Result<()> {
    let before = authorities()?;
    let client = client(&member.server, Some(&before), &Who::Nobody)?;
    let (now, _) = cluster_info(&client)
        .await
        .context("asking the tenant for its authorities")?;
    if now == before {
        return Ok(());
    }
    ensure!(
        stoker_pki::certificate_count(&now).is_ok_and(|count| count > 0),
        "the tenant publishes no authority"
    );
    write(RESTART_DUE, "", 0o600)?;
    write(AUTHORITY, &now, 0o644)
}

/// Restarts when it is `due`, which it is until that has succeeded.
async fn restart_if_due(due: &Path, restart: impl AsyncFnOnce() -> Result<()>) -> Result<bool> {
    if !due.exists() {
        return Ok(false);
    }
    restart().await.context("restarting the kubelet")?;
    fs::remove_file(due).with_context(|| format!("removing {}", due.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn a_restart_that_fails_is_tried_again_and_one_that_succeeds_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let due = folder.path().join("due");
        assert!(!restart_if_due(&due, async || bail!("no")).await.unwrap());
        fs::write(&due, "").unwrap();
        assert!(restart_if_due(&due, async || bail!("no")).await.is_err());
        assert!(restart_if_due(&due, async || Ok(())).await.unwrap());
        assert!(!restart_if_due(&due, async || bail!("no")).await.unwrap());
    }
}
