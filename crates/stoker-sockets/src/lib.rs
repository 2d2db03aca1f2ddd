//! TCP connections whose bytes are passed on for others.
//!
//! Owns: their options, and what becomes of one when the other ends.
//!
//! Must not: dial, listen, or look at the bytes.

mod options;
pub mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use options::options;
