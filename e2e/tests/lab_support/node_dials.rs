//! Whom a host talks to.

use std::net::IpAddr;

use anyhow::Result;
use stoker_lab::host::Host;

/// Whether the kubelet, or anything else of the host itself, has a connection to the address.
pub(crate) async fn talks_to(worker: &Host, address: IpAddr) -> Result<bool> {
    let to = format!("dst {address}");
    let list = "ss --no-header --tcp --numeric state established";
    let found = worker.run(list.split(' ').chain([to.as_str()])).await?;
    Ok(!found.trim().is_empty())
}
