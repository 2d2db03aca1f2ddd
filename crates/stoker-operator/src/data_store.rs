//! `DataStore`s: credentials, health, who uses them, data whose retention is over.

pub mod credentials;
pub mod peers;
pub mod pools;
pub mod reconcile;
pub mod sweep;

pub use pools::{OpenPool, Pools};
