//! Calls of the `nft` program in the current network namespace.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Applies a whole script as one transaction: all of it or, on an error, nothing.
pub(super) async fn apply(script: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start nft (Debian package nftables)")?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft that gives up early closes its end; its own message says more than this error.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.context("wait for nft")?;
    if !output.status.success() {
        bail!(
            "nft refused the rules: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Removes a table of family inet, whether it exists or not.
pub(super) async fn remove(table: &str) -> anyhow::Result<()> {
    apply(&replace_prefix(table))
        .await
        .with_context(|| format!("remove nft table {table}"))
}

/// The lines before a table's definition that make it replace the former one.
pub(super) fn replace_prefix(table: &str) -> String {
    // Deleting a table that is missing is an error, adding one that exists is not.
    format!("add table inet {table}\ndelete table inet {table}\n")
}
