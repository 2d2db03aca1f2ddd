//! Options of the connections whose bytes are led on.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A silent peer is asked after this long whether it is still there, and how often then.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that acknowledges nothing for so long is gone, however often it was asked.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// Bytes are sent at once, and a peer that vanished without a word is noticed within a minute, idle or not.
pub(crate) fn options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}
