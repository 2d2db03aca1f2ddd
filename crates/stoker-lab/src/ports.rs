//! Ports for servers that a test or a benchmark starts on loopback.
//!
//! A port that the kernel picks (port 0) and that is closed again can be taken by anyone before the server listens: by
//! another test, or as the source port of any connection. So these lie below the range of source ports (32768 and up,
//! `net.ipv4.ip_local_port_range`) and below node ports (30000 and up), and none is given out twice while its owner runs.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

const FIRST: u16 = 12_000;
const END: u16 = 30_000;

/// Ports on which nobody listens, all different; until this process ends nobody else is given one of them.
///
/// # Errors
/// When all are taken.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free_port()?;
    }
    Ok(ports)
}

/// One of [`free_ports`].
///
/// # Errors
/// When all are taken.
pub fn free_port() -> Result<u16> {
    static TAKEN: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    for port in FIRST..END {
        if let Some(claim) = claim(port) {
            TAKEN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(claim);
            return Ok(port);
        }
    }
    bail!("every port from {FIRST} to {END} is taken on this machine")
}

/// The claim is an abstract socket's name: seen by all of the network namespace, gone with its process.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("stoker-port-{port}")).ok()?;
    let claim = UnixDatagram::bind_addr(&name).ok()?;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    Some(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice_nor_while_somebody_listens() {
        let [first, second] = free_ports().unwrap();
        assert_ne!(first, second);
        assert!(claim(first).is_none() && claim(second).is_none());
        let mut listener = None;
        let port = (FIRST..END)
            .rev()
            .find(|port| {
                listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).ok();
                listener.is_some()
            })
            .unwrap();
        assert!(claim(port).is_none());
    }
}
