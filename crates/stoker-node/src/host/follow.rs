//! Authorities that rotate: what the tenant publishes takes the place of what this machine believes.

use anyhow::{Context as _, Result, ensure};

use super::access::{Who, client};
use super::discover::cluster_info;
use super::join::authorities;
use super::paths::{AUTHORITY, Membership, write};
use super::service;

/// Looks once; true when others are believed now. Who is asked is believed by the authorities of before, so that nobody else
/// can bring in new ones.
pub(crate) async fn authorities_once(member: &Membership) -> Result<bool> {
    let before = authorities()?;
    let client = client(&member.server, Some(&before), &Who::Nobody)?;
    let (now, _) = cluster_info(&client)
        .await
        .context("asking the tenant for its authorities")?;
    if now == before {
        return Ok(false);
    }
    ensure!(
        stoker_pki::certificate_count(&now).is_ok_and(|count| count > 0),
        "the tenant publishes no authority"
    );
    write(AUTHORITY, &now, 0o644)?;
    // It reads its own way to the API server at its start alone. Pods run on.
    service::restart_kubelet()?;
    Ok(true)
}
