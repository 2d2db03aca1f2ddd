//! Sockets with the options that long-lived connections through networks of others need.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps until they are taken (at most `net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// A silent peer is asked after this long, more often than NATs forget connections; how long after that again, and how often.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Listens at `address`, beside others of this process: the kernel spreads connections over them. One at `[::]` takes
/// IPv4 too, and IPv4 alone where there is no IPv6.
///
/// # Errors
/// The address is taken by another process, or not of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(error) if is_any(address) && no_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        bound => bound,
    }
}

fn is_any(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let codes = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].map(|code| code as i32);
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_any(address))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit them (Linux).
    options(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket to dial `address` from.
///
/// # Errors
/// There are no more file descriptors, or no such address family.
pub fn dialing(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    options(&SockRef::from(&socket))?;
    Ok(socket)
}

/// No `TCP_USER_TIMEOUT`: it cuts a peer too that is there and reads nothing for so long (`kubectl logs -f | less`), since Linux
/// counts a closed window against it though each probe is acknowledged. What is on its way to a peer that vanished is given up
/// by `net.ipv4.tcp_retries2`, after a quarter of an hour.
fn options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanished_is_noticed_and_one_that_does_not_read_is_let_be() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = dialing(address).unwrap().connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for stream in [&dialled, &accepted] {
            let socket = SockRef::from(stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), None);
            let noticed = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap()
                    * socket.tcp_keepalive_retries().unwrap();
            assert_eq!(noticed, Duration::from_mins(1));
        }
    }
}
