//! Sockets that listen and dial, with the options of those whose bytes are passed on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use stoker_sockets::options;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps until they are taken (at most `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

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
    options(&socket)?;
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
    options(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn connections_taken_and_dialled_are_asked_whether_they_are_alive() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = dialing(address).unwrap().connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for stream in [&dialled, &accepted] {
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_user_timeout().unwrap(), None);
            let noticed = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap()
                    * socket.tcp_keepalive_retries().unwrap();
            assert_eq!(noticed, Duration::from_mins(1));
        }
    }
}
