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

/// Bytes read at once, at most.
pub(crate) const LARGEST: usize = 64 << 10;

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
        // Always the same, or a buffer that is nearly as large would be doubled.
        scratch.reserve(LARGEST);
        let mut limited = scratch.limit(most.min(LARGEST));
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn small_pieces_hold_what_they_need_and_large_ones_are_not_copied() {
        let (mut near, mut far) = duplex(300 << 10);
        let mut pieces = Vec::new();
        for length in [100, SMALL - 1, SMALL, LARGEST, LARGEST + 1] {
            near.write_all(&vec![7; length]).await.unwrap();
            pieces.push(
                poll_fn(|context| read(&mut far, context, usize::MAX))
                    .await
                    .unwrap(),
            );
        }
        let lengths: Vec<_> = pieces.iter().map(Bytes::len).collect();
        let whole = LARGEST;
        assert_eq!(lengths, [100, SMALL - 1, SMALL, whole, whole]);
        let held: Vec<_> = pieces
            .into_iter()
            .map(|piece| piece.try_into_mut().map_or(0, |piece| piece.capacity()))
            .collect();
        assert_eq!(held[..2], [100, SMALL - 1]);
        assert!(held[2..].iter().all(|held| *held <= whole), "{held:?}");

        let rest = poll_fn(|context| read(&mut far, context, 10)).await;
        assert_eq!(rest.unwrap().len(), 1);
        drop(near);
        let end = poll_fn(|context| read(&mut far, context, 10)).await;
        assert!(end.unwrap().is_empty());
    }
}
