//! What is written while a connection is polled leaves at once, as one piece.
//!
//! h2 flushes after every piece of a body, and TLS makes a record and a system call of each flush: of the requests of a
//! pass, made in one go, each would be a packet of its own, with a reader to wake.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From this many bytes on nothing is taken before they are written. What h2 writes at once comes on top: a frame.
const LIMIT: usize = 64 * 1024;
/// Room that is kept while nothing is held back: a tenant's connection is silent nearly always.
const KEPT: usize = 512;

/// A stream whose writes are held back until [`Cork::pull`]; flushing it does nothing.
pub(super) struct Cork<Io>(Arc<Mutex<Held<Io>>>);

struct Held<Io> {
    io: Io,
    bytes: Vec<u8>,
    /// How many of them were written.
    written: usize,
}

impl<Io> Clone for Cork<Io> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Io> Cork<Io> {
    pub(super) fn new(io: Io) -> Self {
        Self(Arc::new(Mutex::new(Held {
            io,
            bytes: Vec::new(),
            written: 0,
        })))
    }

    /// Never waited for: both owners are polled by one task.
    fn lock(&self) -> MutexGuard<'_, Held<Io>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io: AsyncWrite + Unpin> Cork<Io> {
    /// Writes what was held back. Where not all of it could be, the task is woken to go on.
    ///
    /// # Errors
    /// As the stream's own writes.
    pub(super) fn pull(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.lock();
        ready!(held.write_out(context))?;
        Pin::new(&mut held.io).poll_flush(context)
    }
}

impl<Io: AsyncWrite + Unpin> Held<Io> {
    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let left = &self.bytes[self.written..];
            let written = ready!(Pin::new(&mut self.io).poll_write(context, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.written = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Cork<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Cork<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.lock();
        if held.bytes.len() >= LIMIT {
            ready!(held.write_out(context))?;
        }
        held.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.lock();
        ready!(held.write_out(context))?;
        Pin::new(&mut held.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_in_order_when_it_is_let_go() {
        let (near, mut far) = duplex(4096);
        let mut cork = Cork::new(near);
        let pulled = cork.clone();
        cork.write_all(b"one ").await.unwrap();
        cork.flush().await.unwrap();
        cork.write_all(b"two").await.unwrap();
        let mut read = [0; 7];
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut read));
        assert!(early.await.is_err(), "held back");
        poll_fn(|context| pulled.pull(context)).await.unwrap();
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
        cork.write_all(b"end").await.unwrap();
        cork.shutdown().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_holds_up_the_writer_and_nothing_is_lost() {
        let (near, mut far) = duplex(1000);
        let mut cork = Cork::new(near);
        let pulled = cork.clone();
        let sent: Vec<u8> = (0..=255).cycle().take(5 * LIMIT).collect();
        let expected = sent.clone();
        let writing = async {
            for part in sent.chunks(1500) {
                cork.write_all(part).await.unwrap();
                assert!(cork.lock().bytes.len() < LIMIT + 1500);
            }
            poll_fn(|context| pulled.pull(context)).await.unwrap();
            assert!(cork.lock().bytes.capacity() <= KEPT);
            drop((cork, pulled));
        };
        let mut arrived = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut arrived), writing);
        read.unwrap();
        assert_eq!(arrived, expected);
    }
}
