//! What there is to read of a socket, in one piece.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A read of fewer bytes is copied into a buffer of its size, so that small pieces that wait hold no large ones.
const SMALL: usize = 8 << 10;

thread_local! {
    /// What is read into: one buffer for all sockets of a thread, of which what was read is cut off.
    static SCRATCH: RefCell<BytesMut> = RefCell::default();
}

/// What one read gives, at most so many bytes; nothing at the end.
pub(crate) fn read<S: AsyncRead + Unpin + ?Sized>(
    socket: &mut S,
    context: &mut Context<'_>,
    most: usize,
) -> Poll<io::Result<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reserve(most);
        let mut limited = scratch.limit(most);
        let length = ready!(pin!(socket.read_buf(&mut limited)).poll(context))?;
        Poll::Ready(Ok(if length < SMALL {
            let piece = Bytes::copy_from_slice(scratch);
            scratch.clear();
            piece
        } else {
            scratch.split().freeze()
        }))
    })
}
