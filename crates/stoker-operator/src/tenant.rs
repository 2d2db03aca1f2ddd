//! `TenantControlPlane`s: one pass over one tenant, and what is kept in memory between passes.

mod addresses;
mod apply;
pub mod authority;
mod build;
mod claim;
pub(crate) mod connection;
pub(crate) mod damper;
pub mod delete;
pub mod encryption;
pub mod error;
mod escrow;
pub mod hibernation;
pub mod identity;
mod inputs;
pub mod inside;
mod kubelets;
mod lost_keys;
pub(crate) mod manifest;
pub mod pods;
pub mod reconcile;
pub mod rollout;
pub mod routes;
mod secrets;
mod serving;
pub(crate) mod spec;
pub mod state;
pub mod status;
pub mod storage_client;
mod store;
mod task;
mod told;
pub(crate) mod trouble;
mod turn;
pub mod writes;

pub use error::Error;
pub use state::{TenantState, Tenants};
