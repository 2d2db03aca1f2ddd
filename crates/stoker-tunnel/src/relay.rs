//! Bytes between a socket and a stream, both ways, at the pace of whoever reads.
//!
//! A direction that ends is passed on as an end of that direction alone. A stream that breaks is reset. Whoever goes away
//! altogether, or breaks, or no longer listens, has still said what they said: that arrives, and then the stream ends, with
//! trailers where it was cut, so that a cut is never taken for an end. For 30 s: then it is reset. Where one direction has ended
//! and the other is silent for long, it is broken.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
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

/// How long what was said by someone who is gone may still be on its way. A reset overtakes it.
const LINGER: Duration = Duration::from_secs(30);

/// Why bytes could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket broke. What had come by it was passed on.
    #[error("the socket broke")]
    Socket(#[source] io::Error),
    /// The other end's socket broke.
    #[error("the other end's socket broke")]
    Cut,
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

/// What is left to be done with a stream.
enum Then {
    Nothing,
    /// This end has said everything and hears nothing: what it said arrives before the other one ends.
    Wait,
    Reset,
}

/// Passes bytes on until both directions have ended.
///
/// # Errors
/// One of them broke. The socket is the caller's to close.
pub async fn relay<R: Readable, W: AsyncWrite + Unpin>(
    read: &mut R,
    write: &mut W,
    mut send: SendStream<Bytes>,
    mut receive: RecvStream,
) -> Result<(), Error> {
    let seen = Seen::default();
    let (both, then) = {
        let mut outward = pin!(outward(read, &mut send, &seen));
        let mut inward = pin!(inward(write, &mut receive, &seen));
        tokio::select! {
            ended = &mut outward => match ended {
                // What they said before they went away is still on its way.
                Ok(End::HungUp) => match timeout(LINGER, inward).await {
                    Ok(ended) => left(ended, Then::Wait),
                    Err(_) => (Err(Error::HungUp), Then::Reset),
                },
                Err(Error::Socket(broken)) => {
                    let then = match timeout(LINGER, inward).await {
                        Ok(Err(Error::Socket(_))) => Then::Wait,
                        Ok(_) => Then::Nothing,
                        Err(_) => Then::Reset,
                    };
                    (Err(Error::Socket(broken)), then)
                }
                Ok(End::Said) | Err(Error::Closed) => {
                    left(unless_silent(inward, &seen).await, Then::Wait)
                }
                broken @ Err(_) => (broken.map(drop), Then::Reset),
            },
            ended = &mut inward => match ended {
                Ok(()) => match unless_silent(outward, &seen).await {
                    Ok(_) | Err(Error::Closed) => (Ok(()), Then::Nothing),
                    broken => left(broken.map(drop), Then::Nothing),
                },
                // Nobody hears what still comes, of which the other end sends no more than a window.
                Err(Error::Socket(broken)) => match unless_silent(outward, &seen).await {
                    Ok(_) | Err(Error::Closed | Error::Socket(_)) => {
                        (Err(Error::Socket(broken)), Then::Wait)
                    }
                    silent => (silent.map(drop), Then::Reset),
                },
                broken @ Err(_) => (broken, Then::Reset),
            },
        }
    };
    let resets = match then {
        Then::Nothing => false,
        Then::Wait => timeout(LINGER, thrown_away(&mut receive)).await.is_err(),
        Then::Reset => true,
    };
    if resets {
        send.send_reset(Reason::CANCEL);
    }
    both
}

/// How the second direction ended; `then` where its socket broke.
fn left(ended: Result<(), Error>, then: Then) -> (Result<(), Error>, Then) {
    let then = match ended {
        Ok(()) => Then::Nothing,
        Err(Error::Socket(_)) => then,
        Err(_) => Then::Reset,
    };
    (ended, then)
}

/// Until it ends. It is kept as used, so that no more is sent than a window.
async fn thrown_away(receive: &mut RecvStream) {
    while let Some(Ok(_)) = poll_fn(|context| receive.poll_data(context)).await {}
}

/// What one direction knows that the other needs.
#[derive(Default)]
struct Seen {
    /// How often something was passed on.
    moved: AtomicU64,
    /// A write met what broke the socket: reading it shows an end then.
    cut: AtomicBool,
}

/// The rest of the direction that is left.
async fn unless_silent<T>(
    left: impl Future<Output = Result<T, Error>>,
    seen: &Seen,
) -> Result<T, Error> {
    let silence = async {
        let mut before = seen.moved.load(Ordering::Relaxed);
        loop {
            sleep(HALF_CLOSED).await;
            let now = seen.moved.load(Ordering::Relaxed);
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
    seen: &Seen,
) -> Result<End, Error> {
    let mut flow = Flow::new(Instant::now());
    loop {
        tokio::select! {
            biased;
            readable = read.readable() => readable.map_err(|broken| cut(send, broken))?,
            _ = poll_fn(|context| send.poll_reset(context)) => return Err(Error::Closed),
        }
        // Nothing after all is no reason to hold a buffer: the socket is asked once, and waited for above.
        let chunk = poll_fn(|context| Poll::Ready(piece::read(read, context, CHUNK))).await;
        let Poll::Ready(chunk) = chunk else {
            continue;
        };
        let chunk = chunk.map_err(|broken| cut(send, broken))?;
        if chunk.is_empty() && seen.cut.load(Ordering::Relaxed) {
            return Err(cut(send, io::ErrorKind::ConnectionReset.into()));
        }
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
        seen.moved.fetch_add(1, Ordering::Relaxed);
        if let Some(rest) = rest.filter(|_| R::ROOMY && is_drained) {
            sleep(rest).await;
        }
    }
}

/// Ends the stream behind what was said, by trailers: an end by itself would be one.
fn cut(send: &mut SendStream<Bytes>, broken: io::Error) -> Error {
    match send.send_trailers(HeaderMap::new()) {
        Ok(()) => Error::Socket(broken),
        Err(error) => Error::Stream(error),
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
    seen: &Seen,
) -> Result<(), Error> {
    let mut arrived = Chunks::default();
    loop {
        let end = poll_fn(|context| gather(receive, &mut arrived, context)).await;
        let length = arrived.remaining();
        if length > 0 {
            if let Err(broken) = write.write_all_buf(&mut arrived).await {
                // Whoever closed, and was reset only behind that, had said everything (Linux: EPIPE).
                let is_cut = broken.kind() != io::ErrorKind::BrokenPipe;
                seen.cut.store(is_cut, Ordering::Relaxed);
                return Err(Error::Socket(broken));
            }
            receive
                .flow_control()
                .release_capacity(length)
                .map_err(Error::Stream)?;
            seen.moved.fetch_add(1, Ordering::Relaxed);
        }
        match end {
            Some(Ok(())) => return write.shutdown().await.map_err(Error::Socket),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
}

/// Waits for what arrives, and takes what has arrived with it; with the end, if that is behind it.
fn gather(
    receive: &mut RecvStream,
    arrived: &mut Chunks,
    context: &mut Context<'_>,
) -> Poll<Option<Result<(), Error>>> {
    while arrived.remaining() < GATHERED {
        match receive.poll_data(context) {
            Poll::Ready(Some(Ok(chunk))) => arrived.push(chunk),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Error::Stream(error)))),
            Poll::Ready(None) => {
                return receive.poll_trailers(context).map(|trailers| {
                    Some(match trailers {
                        Ok(None) => Ok(()),
                        Ok(Some(_)) => Err(Error::Cut),
                        Err(error) => Err(Error::Stream(error)),
                    })
                });
            }
            Poll::Pending if arrived.has_remaining() => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(None)
}

#[cfg(test)]
mod tests;
