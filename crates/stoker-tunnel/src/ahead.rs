//! A socket that is read in large pieces while there is much to read.
//!
//! TLS reads 4 KiB at a time: five calls into the kernel for each record of 16 KiB.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::task::coop;

/// Bytes read at once.
const AHEAD: usize = 64 << 10;

/// A socket, and what was read from it ahead. Holds no buffer while little comes.
#[derive(Debug)]
pub struct ReadAhead<S> {
    socket: S,
    ahead: BytesMut,
    /// The last read filled what it was given: there is more.
    more: bool,
}

impl<S> ReadAhead<S> {
    /// Nothing has been read yet.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            ahead: BytesMut::new(),
            more: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() && !this.more {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
            this.more = buffer.remaining() == 0 && buffer.filled().len() > before;
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead.reserve(AHEAD);
            match poll_read_into(&mut this.socket, context, &mut this.ahead, AHEAD) {
                Poll::Ready(Ok(AHEAD)) => {}
                Poll::Ready(Ok(_)) => this.more = false,
                other => {
                    (this.ahead, this.more) = (BytesMut::new(), false);
                    ready!(other)?;
                }
            }
        }
        // What is here already is no reason to keep others waiting.
        let turn = ready!(coop::poll_proceed(context));
        turn.made_progress();
        let part = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..part]);
        this.ahead.advance(part);
        if this.ahead.is_empty() && !this.more {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// One read behind what the buffer has, of so many bytes at most; 0 at the end.
pub(crate) fn poll_read_into<S: AsyncRead + Unpin + ?Sized>(
    socket: &mut S,
    context: &mut Context<'_>,
    buffer: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<usize>> {
    pin!(socket.read_buf(&mut buffer.limit(most))).poll(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn what_is_read_ahead_arrives_whole_and_in_order() {
        let (mut near, far) = duplex(300 << 10);
        let said: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = said.clone();
        let telling = tokio::spawn(async move {
            // Pieces that fill a read exactly, and such that do not.
            for piece in said.chunks(70_001) {
                near.write_all(piece).await.unwrap();
            }
        });
        let mut socket = ReadAhead::new(far);
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match socket.read(&mut piece).await.unwrap() {
                0 => break,
                read => heard.extend_from_slice(&piece[..read]),
            }
        }
        telling.await.unwrap();
        assert!(heard == expected);
    }

    #[tokio::test]
    async fn who_hears_little_holds_no_buffer() {
        let (mut near, far) = duplex(300 << 10);
        let mut socket = ReadAhead::new(far);
        let mut piece = [0; 4096];
        near.write_all(&[7; 100]).await.unwrap();
        assert_eq!(socket.read(&mut piece).await.unwrap(), 100);
        assert_eq!(socket.ahead.capacity(), 0);

        near.write_all(&[7; 2 * 4096 + 1]).await.unwrap();
        assert_eq!(socket.read(&mut piece).await.unwrap(), 4096);
        assert_eq!(socket.read(&mut piece).await.unwrap(), 4096);
        assert!(socket.ahead.capacity() >= AHEAD - 4096);
        assert_eq!(socket.read(&mut piece).await.unwrap(), 1);
        assert_eq!(socket.ahead.capacity(), 0);

        // Exactly what was asked for, and nothing after it.
        near.write_all(&[7; 4096]).await.unwrap();
        assert_eq!(socket.read(&mut piece).await.unwrap(), 4096);
        let nothing = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut piece);
            Poll::Ready(Pin::new(&mut socket).poll_read(context, &mut buffer))
        });
        assert!(nothing.await.is_pending());
        assert_eq!(socket.ahead.capacity(), 0);
    }
}
