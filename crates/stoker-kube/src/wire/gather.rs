//! Answers that come many at a time are read together.
//!
//! An API server that was sent thirty writes at once answers them one by one, and each answer would wake the reader. Left
//! alone for as long as they take, the socket has more to read at each time. A socket that nobody polls still wakes the
//! thread, since epoll is told of each arrival: so it is taken from epoll meanwhile.

use std::io::{self, ErrorKind, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Answers that are worth waiting for together.
const FEW: usize = 3;
/// A server that has many requests at once takes about as long for each.
const EACH: Duration = Duration::from_micros(1500);
/// Requests of one connection that are not answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unanswered(Arc<AtomicUsize>);

/// A request that is sent, until it is answered or given up.
pub(super) struct Sent(Unanswered);

impl Unanswered {
    pub(super) fn sent(&self) -> Sent {
        self.0.fetch_add(1, Ordering::Relaxed);
        Sent(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that rests while answers gather.
pub(crate) struct Gather {
    socket: Socket,
    unanswered: Unanswered,
    /// What else arrives waits no longer each time.
    longest: Duration,
    /// Whether anything was read or written since the last rest: a server that hangs is not rested for again.
    moved: bool,
}

enum Socket {
    Polled(TcpStream),
    /// Not known to the reactor, until the time is over.
    Resting(std::net::TcpStream, Pin<Box<Sleep>>),
    /// It could not be taken from the reactor or given to it.
    Broken,
}

impl Gather {
    pub(crate) fn new(stream: TcpStream, unanswered: Unanswered, longest: Duration) -> Self {
        Self {
            socket: Socket::Polled(stream),
            unanswered,
            longest,
            moved: false,
        }
    }

    fn rest(&mut self) -> io::Result<()> {
        let all = EACH.saturating_mul(u32::try_from(self.unanswered.count()).unwrap_or(u32::MAX));
        self.moved = false;
        if let Socket::Polled(stream) = std::mem::replace(&mut self.socket, Socket::Broken) {
            let over = sleep(all.min(self.longest));
            self.socket = Socket::Resting(stream.into_std()?, Box::pin(over));
        }
        Ok(())
    }

    /// The socket, polled again.
    fn polled(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Socket::Resting(..) = self.socket
            && let Socket::Resting(stream, _) = std::mem::replace(&mut self.socket, Socket::Broken)
        {
            self.socket = Socket::Polled(TcpStream::from_std(stream)?);
        }
        match &mut self.socket {
            Socket::Polled(stream) => Ok(Pin::new(stream)),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Connection for Gather {
    fn connected(&self) -> Connected {
        match &self.socket {
            Socket::Polled(stream) => stream.connected(),
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Gather {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Socket::Resting(_, rest) = &mut this.socket {
                ready!(rest.as_mut().poll(context));
            }
            let had = buffer.filled().len();
            let read = this.polled()?.poll_read(context, buffer);
            this.moved |= buffer.filled().len() > had;
            if read.is_ready() || !this.moved || this.unanswered.count() < FEW {
                return read;
            }
            this.rest()?;
        }
    }
}

impl AsyncWrite for Gather {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.moved = true;
        if let Socket::Resting(stream, _) = &mut this.socket {
            match stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        this.polled()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().polled()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(30);

    async fn pair() -> (Gather, Unanswered, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let unanswered = Unanswered::default();
        let gather = Gather::new(near.unwrap(), unanswered.clone(), LONGEST);
        (gather, unanswered, far.unwrap().0)
    }

    /// How long until `length` bytes are read, of which `far` sends one a millisecond, and in how many pieces.
    async fn read(gather: &mut Gather, far: &mut TcpStream, length: usize) -> (Duration, usize) {
        let began = Instant::now();
        let sending = async {
            for _ in 0..length {
                far.write_all(b"x").await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        };
        let reading = async {
            let (mut read, mut pieces) = (0, 0);
            let mut buffer = [0; 1000];
            while read < length {
                read += gather.read(&mut buffer).await.unwrap();
                pieces += 1;
            }
            (began.elapsed(), pieces)
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn answers_to_many_requests_are_read_together_and_those_to_few_at_once() {
        let (mut gather, unanswered, mut far) = pair().await;
        let mut sent: Vec<_> = (0..20).map(|_| unanswered.sent()).collect();
        gather.write_all(b"requests").await.unwrap();
        let (_, together) = read(&mut gather, &mut far, 50).await;
        assert!(together <= 5, "{together} pieces");
        sent.truncate(FEW - 1);
        let (_, apart) = read(&mut gather, &mut far, 50).await;
        assert!(apart > 10, "{apart} pieces");
        let mut requests = [0; 8];
        far.read_exact(&mut requests).await.unwrap();
        assert_eq!(&requests, b"requests");
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_leaves_at_once_and_a_server_that_hangs_is_rested_for_once() {
        let (mut gather, unanswered, mut far) = pair().await;
        let _sent: Vec<_> = (0..50).map(|_| unanswered.sent()).collect();
        let mut buffer = [0; 10];
        gather.write_all(b"a").await.unwrap();
        {
            let mut reading = Box::pin(gather.read(&mut buffer));
            assert!(futures::poll!(reading.as_mut()).is_pending());
        }
        assert!(matches!(gather.socket, Socket::Resting(..)));
        gather.write_all(b"b").await.unwrap();
        assert!(matches!(gather.socket, Socket::Resting(..)));
        let mut arrived = [0; 2];
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"ab");
        let hangs = tokio::time::timeout(LONGEST * 4, gather.read(&mut buffer));
        assert!(hangs.await.is_err());
        assert!(matches!(gather.socket, Socket::Polled(_)));
        drop(far);
        assert_eq!(
            gather.read(&mut buffer).await.unwrap(),
            0,
            "its end is told"
        );
    }
}
