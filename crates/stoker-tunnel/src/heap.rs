//! What the allocator does with memory that is free again.

use std::hint::black_box;

/// Bytes that may stay with the process, twice.
const KEPT: usize = 256 << 10;

/// Lets the allocator keep some memory that is free. The GNU C library's gives back what is more than 128 KiB at the end of its
/// heap, and buffers of 64 KiB come and go with every read: each would be fetched from the kernel anew, page by page. Where one
/// as large as this was freed, it keeps twice as much from then on (`M_TRIM_THRESHOLD` in `mallopt(3)`). It is never touched and
/// costs nothing; other allocators do not mind.
pub fn keep_some() {
    drop(black_box(Vec::<u8>::with_capacity(KEPT)));
}
