//! Bytes between a socket and a stream, both ways, at the pace of whoever reads.
//!
//! A direction that ends is passed on as an end of that direction alone. What breaks breaks both: the
//! stream is reset, so that a cut is never taken for an end.

use std::future::{Future, poll_fn};
use std::io;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{tcp, unix};
use tokio::try_join;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

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
}

impl Readable for tcp::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        tcp::ReadHalf::readable(self).await
    }

    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(into)
    }
}

impl Readable for unix::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        unix::ReadHalf::readable(self).await
    }

    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(into)
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
    let both = try_join!(outward(read, &mut send), inward(write, &mut receive));
    if both.is_err() {
        send.send_reset(Reason::CANCEL);
    }
    both.map(|_| ())
}

async fn outward<R: Readable>(read: &R, send: &mut SendStream<Bytes>) -> Result<(), Error> {
    loop {
        read.readable().await.map_err(Error::Socket)?;
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match read.try_read(&mut chunk) {
            Ok(0) => return send.send_data(Bytes::new(), true).map_err(Error::Stream),
            Ok(_) => pass(chunk.freeze(), send).await?,
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
) -> Result<(), Error> {
    while let Some(chunk) = receive.data().await {
        let chunk = chunk.map_err(Error::Stream)?;
        write.write_all(&chunk).await.map_err(Error::Socket)?;
        receive
            .flow_control()
            .release_capacity(chunk.len())
            .map_err(Error::Stream)?;
    }
    write.shutdown().await.map_err(Error::Socket)
}
