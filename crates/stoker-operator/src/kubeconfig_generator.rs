//! Kubeconfigs for people and programs.
//!
//! ```text
//!  KubeconfigGenerator ──► every tenant ─┐   ┌──────────────────────────────────┐
//!  tenant, its labels ───────────────────┤   │ tenant: which generators select  ├─► Secret <tenant>-<generator>
//!  labels of its namespace ──────────────┼──►│ it → read → build → apply        │
//!  its authority or admin kubeconfig ────┤   └───────────────┬──────────────────┘
//!  the Secrets made ─────────────────────┘      what came of it ──► generator: status
//! ```
//! A pass is one over a tenant; a pass over a generator only counts what those found. While there is no generator nothing
//! is kept, read or written. All of the state can be lost: a restart reads it again.

pub mod build;
pub mod dereference;
pub mod reconcile;
pub mod state;
pub mod status;
pub mod tenant;
pub mod work;

pub use state::Kubeconfigs;
