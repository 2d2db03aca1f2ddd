//! Pieces of bytes that are written at once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Pieces, of which none is empty, and their length in all.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Chunks {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, bytes: usize) {
        self.length -= bytes;
        let mut left = bytes;
        while let Some(first) = self.pieces.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order_however_little_is_taken() {
        let mut chunks = Chunks::default();
        for piece in ["ab", "", "cde", "f"] {
            chunks.push(Bytes::from_static(piece.as_bytes()));
        }
        let mut seen = Vec::new();
        let mut slices = [IoSlice::new(&[]); 64];
        assert_eq!(chunks.chunks_vectored(&mut slices), 3);
        for taken in [1, 3, 2] {
            let mut slices = [IoSlice::new(&[]); 2];
            let filled = chunks.chunks_vectored(&mut slices);
            let all: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            seen.extend_from_slice(&all[..taken]);
            chunks.advance(taken);
        }
        assert_eq!(seen, b"abcdef");
        assert_eq!((chunks.remaining(), chunks.chunk()), (0, &b""[..]));
    }
}
