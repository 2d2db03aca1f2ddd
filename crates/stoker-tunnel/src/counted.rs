//! A socket's halves that count what passes through them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::relay::Readable;

/// A half, and where its bytes are counted.
#[derive(Debug)]
pub struct Counted<'a, T>(pub T, pub &'a AtomicU64);

impl<T> Counted<'_, T> {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl<T: Readable + Sync> Readable for Counted<'_, T> {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.0.readable()
    }

    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        let read = self.0.try_read(into)?;
        self.count(read);
        Ok(read)
    }

    fn hung_up(&self) -> bool {
        self.0.hung_up()
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &written {
            self.count(*written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
