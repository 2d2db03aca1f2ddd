//! One of several addresses that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// When one has not answered, the next is dialled beside it (RFC 8305: 250 ms).
pub(crate) const HASTE: Duration = Duration::from_millis(250);

/// Dials in their order, the next beside one that takes its time: one that is silent holds up nobody.
///
/// # Errors
/// The last failure when all have failed; there is no limit of time.
pub(crate) async fn first_of(
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut dialling = JoinSet::new();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    loop {
        let next = left.next();
        if let Some(address) = next {
            dialling.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            Some(Ok(dialled)) = dialling.join_next() => match dialled {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = sleep(HASTE), if next.is_some() => {}
            else => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    #[tokio::test]
    async fn neither_a_silent_address_nor_a_refusing_one_keeps_from_the_next() {
        let answers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A queue that is full: the kernel drops what comes on top.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&silent).listen(0).unwrap();
        let silent = silent.local_addr().unwrap();
        let _full = TcpStream::connect(silent).await.unwrap();
        let refuses = SocketAddr::from(([127, 0, 0, 1], stoker_lab::ports::free_port().unwrap()));
        let all = [silent, refuses, answers.local_addr().unwrap()];
        let dialled = timeout(Duration::from_secs(2), first_of(all)).await;
        let peer = dialled.expect("one answers").unwrap().peer_addr().unwrap();
        assert_eq!(peer, answers.local_addr().unwrap());
        let error = first_of([refuses]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
