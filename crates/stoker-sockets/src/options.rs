//! What long-lived connections through networks of others need.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A silent peer is asked after this long whether it is still there, more often than NATs forget connections; how long after that
/// again, and how often.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Bytes are sent at once, and a peer that vanished without a word is noticed within a minute while nothing is on its way to it.
/// What is on its way is the kernel's to give up (`net.ipv4.tcp_retries2`, a quarter of an hour): `TCP_USER_TIMEOUT` would be
/// shorter, but cuts a peer too that is there and reads nothing for so long (`kubectl logs -f | less`), since Linux counts a closed
/// window against it though each probe is acknowledged. Accepted sockets inherit all of it from the one that listens (Linux).
///
/// # Errors
/// The kernel does not know one of them.
pub fn options<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanished_is_noticed_and_one_that_does_not_read_is_let_be() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let stream = stream.unwrap();
        options(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        let noticed = socket.tcp_keepalive_time().unwrap()
            + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(noticed, Duration::from_mins(1));
    }
}
