//! Front door of the lab.

use stoker_lab::{steps::Steps, upstream::Upstream, versions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let upstream = Upstream::open(Steps::new())?;
    let version = versions::default_kubernetes();
    upstream.pause().await?;
    upstream.etcd(versions::ETCD).await?;
    upstream.kubernetes(version).await?;
    upstream.containerd(versions::CONTAINERD).await?;
    upstream.coredns(version.coredns).await?;
    upstream.agnhost(version).await?;
    Ok(())
}
