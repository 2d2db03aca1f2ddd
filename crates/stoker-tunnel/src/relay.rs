//! Bytes between a socket and a stream, both ways, at the pace of whoever reads.
//!
//! A direction that ends is passed on as an end of that direction alone. What breaks breaks both: the
//! stream is reset, so that a cut is never taken for an end. Whoever goes away altogether has still said what they said:
//! that arrives, and then the stream ends. Where one direction has ended and the other is silent for long, it is broken.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixStream, tcp, unix};
use tokio::time::{sleep, timeout};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// How long one direction may be silent after the other has ended; twice as long at most.
const HALF_CLOSED: Duration = Duration::from_mins(5);

/// How long what was said by someone who went away may still be on its way. A reset overtakes it.
const LINGER: Duration = Duration::from_secs(30);

/// Why bytes could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket broke.
    #[error("the socket broke")]
    Socket(#[source] io::Error),
    /// The stream broke, or the connection under it.
    #[error("the stream broke")]
    Stream(#[source] h2::Error),
    /// The other end no longer wants what is sent.
    #[error("the stream was closed")]
    Closed,
    /// Whoever had the socket is gone, and not only at the end of what they say.
    #[error("nobody has the socket any more")]
    HungUp,
    /// One direction had ended, and nothing came by the other.
    #[error("half-closed and silent for {} min", HALF_CLOSED.as_secs() / 60)]
    HalfClosed,
}

/// The half of a socket that is read, which says when there is something: without that, every idle
/// stream would hold a buffer.
pub trait Readable {
    /// Waits until there is something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads what there is; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` when there was nothing after all.
    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize>;

    /// Whether, after an end was read, nobody reads what is written either, as far as this kind of socket tells.
    fn hung_up(&self) -> bool;
}

impl Readable for tcp::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        tcp::ReadHalf::readable(self).await
    }

    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(into)
    }

    /// Over TCP that shows only when something is written.
    fn hung_up(&self) -> bool {
        false
    }
}

impl Readable for unix::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        unix::ReadHalf::readable(self).await
    }

    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(into)
    }

    fn hung_up(&self) -> bool {
        let socket: &UnixStream = self.as_ref();
        let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        let _ = poll(&mut asked, PollTimeout::ZERO);
        let told = asked[0].revents().unwrap_or(PollFlags::empty());
        told.contains(PollFlags::POLLHUP)
    }
}

/// Passes bytes on until both directions have ended.
///
/// # Errors
/// One of them broke. The stream is reset; the socket is the caller's to close.
pub async fn relay<R: Readable, W: AsyncWrite + Unpin>(
    read: &R,
    write: &mut W,
    mut send: SendStream<Bytes>,
    mut receive: RecvStream,
) -> Result<(), Error> {
    let moved = AtomicU64::new(0);
    let both = {
        let mut outward = pin!(outward(read, &mut send, &moved));
        let mut inward = pin!(inward(write, &mut receive, &moved));
        tokio::select! {
            ended = &mut outward => match ended {
                Ok(()) if read.hung_up() => {
                    timeout(LINGER, inward).await.unwrap_or(Err(Error::HungUp))
                }
                // What they said before they went away is still on its way.
                Ok(()) | Err(Error::Closed) => unless_silent(inward, &moved).await,
                broken => broken,
            },
            ended = &mut inward => match ended {
                Ok(()) => match unless_silent(outward, &moved).await {
                    Err(Error::Closed) => Ok(()),
                    other => other,
                },
                broken => broken,
            },
        }
    };
    if both.is_err() {
        send.send_reset(Reason::CANCEL);
    }
    both
}

/// The rest of the direction that is left.
async fn unless_silent(
    left: impl Future<Output = Result<(), Error>>,
    moved: &AtomicU64,
) -> Result<(), Error> {
    let silence = async {
        let mut before = moved.load(Ordering::Relaxed);
        loop {
            sleep(HALF_CLOSED).await;
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        ended = left => ended,
        () = silence => Err(Error::HalfClosed),
    }
}

async fn outward<R: Readable>(
    read: &R,
    send: &mut SendStream<Bytes>,
    moved: &AtomicU64,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            readable = read.readable() => readable.map_err(Error::Socket)?,
            _ = poll_fn(|context| send.poll_reset(context)) => return Err(Error::Closed),
        }
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match read.try_read(&mut chunk) {
            Ok(0) => return send.send_data(Bytes::new(), true).map_err(Error::Stream),
            Ok(_) => {
                pass(chunk.freeze(), send).await?;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Error::Socket(error)),
        }
    }
}

/// Asks for no more of the window than is used: what one stream holds, others lack.
async fn pass(mut chunk: Bytes, send: &mut SendStream<Bytes>) -> Result<(), Error> {
    while !chunk.is_empty() {
        send.reserve_capacity(chunk.len());
        while send.capacity() == 0 {
            poll_fn(|context| send.poll_capacity(context))
                .await
                .ok_or(Error::Closed)?
                .map_err(Error::Stream)?;
        }
        let part = chunk.split_to(send.capacity().min(chunk.len()));
        send.send_data(part, false).map_err(Error::Stream)?;
    }
    Ok(())
}

async fn inward<W: AsyncWrite + Unpin>(
    write: &mut W,
    receive: &mut RecvStream,
    moved: &AtomicU64,
) -> Result<(), Error> {
    while let Some(chunk) = receive.data().await {
        let chunk = chunk.map_err(Error::Stream)?;
        write.write_all(&chunk).await.map_err(Error::Socket)?;
        receive
            .flow_control()
            .release_capacity(chunk.len())
            .map_err(Error::Stream)?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    write.shutdown().await.map_err(Error::Socket)
}

#[cfg(test)]
mod tests;
