//! Bytes between two sockets, without a buffer of their own for streams that are silent: most of them are watches, and
//! there are a hundred thousand of them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

/// Bytes that are moved at a time; a stream whose receiver does not keep up holds as many.
const CHUNK: usize = 32 << 10;
/// How long one end may be silent of which the other is gone. It is told so by an end, at which clients and servers close.
const GONE: Duration = Duration::from_secs(30);

/// As many bytes are thrown away of one end that talks on to one that is gone: pings, and what was under way. Who says more is not read
/// any more, and is reset as soon as the other direction has ended, as it would be without anybody between.
const UNHEARD: usize = 1 << 20;

/// How long one that one end has closed may be silent, where nobody says otherwise.
pub const HALF_CLOSED: Duration = Duration::from_mins(5);

thread_local! {
    /// Of all streams of a thread: what is read into it is passed on before anybody else runs.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// Receives at most `most` bytes and gives them to `take` before returning; none at the end.
///
/// # Errors
/// The connection broke.
pub async fn receive<T>(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
    mut take: impl FnMut(&mut Context<'_>, &[u8]) -> T,
) -> io::Result<T> {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let most = most.min(scratch.len());
            let mut buffer = ReadBuf::new(&mut scratch[..most]);
            ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(take(context, buffer.filled())))
        })
    })
    .await
}

/// How long streams may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// One that both ends keep open. API servers send something to every watch each minute; `kubectl exec` may be
    /// silent for the four hours that kubelets allow.
    pub open: Option<Duration>,
    /// One that one end has closed.
    pub half_closed: Duration,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// Passes on what either side sends until both have ended, and each end when it comes; `moved` is told of bytes. Who goes away
/// while they are spoken to has still said what they said: that arrives.
///
/// # Errors
/// A connection broke, or both were silent for too long.
pub async fn join(
    client: &mut TcpStream,
    server: &mut TcpStream,
    silence: Silence,
    moved: impl Fn(Way, u64),
) -> io::Result<()> {
    let active = Activity::default();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let moved = |way, bytes| {
        active.now();
        moved(way, bytes);
    };
    let mut up = pin!(one_way(from_client, to_server, |bytes| moved(
        Way::ToServer,
        bytes
    )));
    let mut down = pin!(one_way(from_server, to_client, |bytes| moved(
        Way::ToClient,
        bytes
    )));
    let first = async {
        Ok(tokio::select! {
            ended = &mut up => (Way::ToServer, ended),
            ended = &mut down => (Way::ToClient, ended),
        })
    };
    let (way, ended) = active.watched(silence.open, first).await?;
    active.now();
    let limit = match ended {
        Ok(()) => silence.half_closed,
        Err(_) => silence.half_closed.min(GONE),
    };
    let rest = async {
        match way {
            Way::ToServer => down.await,
            Way::ToClient => up.await,
        }
    };
    let rest = active.watched(Some(limit), rest).await;
    ended.and(rest)
}

/// What nobody hears any more is thrown away, up to its end or to [`UNHEARD`] bytes: a socket that is closed with something unread in
/// it is reset, and loses what it has not sent.
async fn one_way(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    moved: impl Fn(u64),
) -> io::Result<()> {
    let (mut unheard, mut thrown_away) = (None, 0);
    loop {
        let received = receive(&mut from, usize::MAX, |context, bytes| {
            let passed = match unheard {
                None => pass_on(&mut to, context, bytes),
                Some(_) => Ok(Vec::new()),
            };
            (bytes.len(), passed)
        })
        .await;
        let (length, passed) = match received {
            Ok(received) => received,
            Err(broken) => {
                let _ = to.shutdown().await;
                return Err(broken);
            }
        };
        if length == 0 {
            return match unheard {
                None => to.shutdown().await,
                Some(broken) => Err(broken),
            };
        }
        if let Some(broken) = unheard.take() {
            thrown_away += length;
            if thrown_away > UNHEARD {
                return Err(broken);
            }
            unheard = Some(broken);
            continue;
        }
        let written = match passed {
            Ok(left) => to.write_all(&left).await,
            Err(broken) => Err(broken),
        };
        match written {
            Ok(()) => moved(length as u64),
            Err(broken) => unheard = Some(broken),
        }
    }
}

/// Sends what can be sent now; the bytes that are left.
fn pass_on(to: &mut WriteHalf<'_>, context: &mut Context<'_>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let sent = match Pin::new(to).poll_write(context, bytes) {
        Poll::Ready(sent) => sent?,
        Poll::Pending => 0,
    };
    Ok(bytes[sent..].to_vec())
}

/// When something was last moved.
struct Activity {
    begin: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Activity {
    fn now(&self) {
        let passed = self.begin.elapsed().as_millis();
        self.last
            .store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits for `work`, as long as there is no longer silence than `limit`.
    async fn watched<T>(
        &self,
        limit: Option<Duration>,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let Some(limit) = limit else {
            return work.await;
        };
        let mut work = pin!(work);
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let until = self.begin + last + limit;
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Ok(done) = tokio::time::timeout_at(until, &mut work).await {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests;
