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
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixStream, tcp, unix};
use tokio::time::{Instant, sleep, timeout};

use crate::chunks::Chunks;
use crate::flow::Flow;
use crate::piece;
use crate::wire::FRAME;

/// Bytes read at once: a full frame.
const CHUNK: usize = FRAME as usize;

/// Bytes that have arrived and are written at once, about.
const GATHERED: usize = 64 << 10;

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

/// The half of a socket that is read.
pub trait Readable: AsyncRead + Unpin {
    /// Whether the kernel keeps what comes while nobody reads for a moment, so that whoever sends need not stop.
    const ROOMY: bool;

    /// Waits until there is something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Whether, after an end was read, nobody reads what is written either, as far as this kind of socket tells.
    fn hung_up(&self) -> bool;
}

impl Readable for tcp::ReadHalf<'_> {
    const ROOMY: bool = true;

    async fn readable(&self) -> io::Result<()> {
        tcp::ReadHalf::readable(self).await
    }

    /// Over TCP that shows only when something is written.
    fn hung_up(&self) -> bool {
        false
    }
}

impl Readable for unix::ReadHalf<'_> {
    /// 208 KiB, with what keeps account of it.
    const ROOMY: bool = false;

    async fn readable(&self) -> io::Result<()> {
        unix::ReadHalf::readable(self).await
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
    read: &mut R,
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
                Ok(End::HungUp) => timeout(LINGER, inward).await.unwrap_or(Err(Error::HungUp)),
                // What they said before they went away is still on its way.
                Ok(End::Said) | Err(Error::Closed) => unless_silent(inward, &moved).await,
                Err(broken) => Err(broken),
            },
            ended = &mut inward => match ended {
                Ok(()) => match unless_silent(outward, &moved).await {
                    Ok(_) | Err(Error::Closed) => Ok(()),
                    Err(broken) => Err(broken),
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
async fn unless_silent<T>(
    left: impl Future<Output = Result<T, Error>>,
    moved: &AtomicU64,
) -> Result<T, Error> {
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

/// How what is said on a socket ended.
enum End {
    /// All is said; who said it may still listen.
    Said,
    /// Nobody has the socket any more.
    HungUp,
}

async fn outward<R: Readable>(
    read: &mut R,
    send: &mut SendStream<Bytes>,
    moved: &AtomicU64,
) -> Result<End, Error> {
    let mut flow = Flow::new(Instant::now());
    loop {
        tokio::select! {
            biased;
            readable = read.readable() => readable.map_err(Error::Socket)?,
            _ = poll_fn(|context| send.poll_reset(context)) => return Err(Error::Closed),
        }
        // Nothing after all is no reason to hold a buffer: the socket is asked once, and waited for above.
        let chunk = poll_fn(|context| Poll::Ready(piece::read(read, context, CHUNK))).await;
        let Poll::Ready(chunk) = chunk else {
            continue;
        };
        let chunk = chunk.map_err(Error::Socket)?;
        if chunk.is_empty() {
            send.send_data(chunk, true).map_err(Error::Stream)?;
            return Ok(if read.hung_up() {
                End::HungUp
            } else {
                End::Said
            });
        }
        let is_drained = chunk.len() < CHUNK;
        let rest = flow.read(chunk.len(), Instant::now());
        pass(chunk, send).await?;
        moved.fetch_add(1, Ordering::Relaxed);
        if let Some(rest) = rest.filter(|_| R::ROOMY && is_drained) {
            sleep(rest).await;
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
    let mut arrived = Chunks::default();
    loop {
        let end = poll_fn(|context| gather(receive, &mut arrived, context)).await;
        let length = arrived.remaining();
        if length > 0 {
            let written = write.write_all_buf(&mut arrived).await;
            written.map_err(Error::Socket)?;
            receive
                .flow_control()
                .release_capacity(length)
                .map_err(Error::Stream)?;
            moved.fetch_add(1, Ordering::Relaxed);
        }
        match end {
            Some(Ok(())) => return write.shutdown().await.map_err(Error::Socket),
            Some(Err(error)) => return Err(Error::Stream(error)),
            None => {}
        }
    }
}

/// Waits for what arrives, and takes what has arrived with it; with the end, if that is behind it.
fn gather(
    receive: &mut RecvStream,
    arrived: &mut Chunks,
    context: &mut Context<'_>,
) -> Poll<Option<Result<(), h2::Error>>> {
    while arrived.remaining() < GATHERED {
        match receive.poll_data(context) {
            Poll::Ready(Some(Ok(chunk))) => arrived.push(chunk),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
            Poll::Pending if arrived.has_remaining() => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(None)
}

#[cfg(test)]
mod tests;
