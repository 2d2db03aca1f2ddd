//! etcd and kube-apiserver as plain processes on loopback: the smallest real thing for a test.
//!
//! Each fixture has its own temporary directory and free ports and ends with its value, and also when the
//! test process is killed.

mod api_server;
mod cable;
mod container;
mod controller_manager;
mod etcd;
mod guarded;

pub use api_server::{BareApiServer, ServerSettings};
pub use cable::Cable;
pub use container::{BareContainer, ContainerFiles, MountedFiles};
pub use controller_manager::BareControllerManager;
pub use etcd::BareEtcd;

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Loopback ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
        *port = listener
            .local_addr()
            .context("looking for a free port")?
            .port();
        held.push(listener);
    }
    Ok(ports)
}
