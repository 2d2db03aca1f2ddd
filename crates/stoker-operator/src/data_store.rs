//! `DataStore`s: credentials, health, who uses them, data whose retention is over.

pub mod credentials;
pub mod look;
pub mod looks;
pub mod peers;
pub mod pools;
pub mod reconcile;
pub mod status;
pub mod stock;

pub use looks::Looks;
pub use pools::{OpenPool, Pools};
