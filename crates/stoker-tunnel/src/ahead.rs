//! A socket that is read in large pieces.
//!
//! TLS reads 4 KiB at a time: five calls into the kernel for each record of 16 KiB.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use crate::piece;

/// A socket, and what was read from it ahead. Holds no buffer once that is taken.
#[derive(Debug)]
pub struct ReadAhead<S> {
    socket: S,
    ahead: Bytes,
}

impl<S> ReadAhead<S> {
    /// Nothing has been read yet.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            ahead: Bytes::new(),
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
        if this.ahead.is_empty() {
            this.ahead = ready!(piece::read(&mut this.socket, context, piece::LARGEST))?;
        } else {
            // What is here already is no reason to keep others waiting.
            ready!(coop::poll_proceed(context)).made_progress();
        }
        let part = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..part]);
        this.ahead.advance(part);
        if this.ahead.is_empty() {
            this.ahead = Bytes::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

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
    async fn nothing_is_held_that_is_not_read_ahead() {
        let (mut near, far) = duplex(300 << 10);
        let mut socket = ReadAhead::new(far);
        let mut part = [0; 4096];
        near.write_all(&[7; 2 * 4096 + 1]).await.unwrap();
        for (read, left) in [(4096, 4097), (4096, 1), (1, 0)] {
            assert_eq!(socket.read(&mut part).await.unwrap(), read);
            assert_eq!(socket.ahead.len(), left);
        }
        let nothing = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut part);
            Poll::Ready(Pin::new(&mut socket).poll_read(context, &mut buffer))
        });
        assert!(nothing.await.is_pending());
        drop(near);
        assert_eq!(socket.read(&mut part).await.unwrap(), 0);
    }
}
