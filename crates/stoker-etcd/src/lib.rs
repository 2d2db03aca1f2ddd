//! The shared pool of etcd clusters: who owns which prefix, who may read and write it, and whether
//! the pool is safe to share.
//!
//! A tenant is a [`StorageId`]: the keys in `/<id>/` … `/<id>0`, an etcd user and a role of that
//! name, and, outside every tenant's range, an owner record at `stoker.dev/owners/<id>` and sealed copies of
//! its keys at `stoker.dev/escrow/<id>` and of its manifest at `stoker.dev/manifests/<id>`. [`Pool`]
//! gives ([`Pool::claim`]), sets aside ([`Pool::retain`]) and takes back ([`Pool::purge`]) tenants.
//! Every operation may be cut off at any step and run again.
//!
//! The pool must run etcd with client certificates, authentication on and a version without the
//! known holes in its permission checks ([`version`]); [`Pool::check`] says whether it does.

pub mod error;
pub mod grant;
pub mod owner;
pub mod pool;
pub mod version;

mod answer;
mod auth_status;
mod handshake;
mod member;
mod retry;

pub use error::Error;
pub use grant::Change;
pub use owner::{Owner, OwnerRecord};
pub use pool::check::{MemberFacts, PoolFacts};
pub use pool::claim::Claim;
pub use pool::escrow::Escrow;
pub use pool::release::{Purged, Retained};
pub use pool::{Pool, PoolConfig, Usage};
pub use stoker_api::StorageId;
