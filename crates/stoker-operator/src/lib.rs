//! The management binary: watches, reconcile loops, metrics.
//!
//! ```text
//!  TenantControlPlane ─┐                                   ┌─► management API: Service, Secrets, Deployment …
//!  owned objects ──────┤   ┌──────────────────────────┐    ├─► pool: prefix, user, role, records
//!  DataStore ──────────┼──►│ tenant::reconcile        ├───►│
//!  nodes' networks ────┤   │ dereference → validate → │    ├─► tenant API: kubeadm's objects, add-ons
//!  tenant's own API ───┘   │ build → apply → status   │    └─► status, conditions, events
//!                          └──────────────────────────┘
//! ```
//!
//! Every replica also answers the management API server's reviews of tenants (`admission`).
//!
//! One process serves all tenants; per tenant it keeps what it last applied, one connection to the
//! tenant's API server with its watches, and nothing that grows with the tenant's content. Only
//! the holder of the lease writes; losing it ends the process.

pub mod admission;
pub mod args;
mod contained;
pub mod context;
pub mod data_store;
pub mod escrow_key;
mod finalizer;
pub mod health;
pub mod join_token;
pub mod kubeconfig_generator;
pub mod management_networks;
pub mod metrics;
pub mod rbac;
pub mod recover;
pub mod retry;
pub mod routes;
pub mod run;
pub mod scheduling;
pub mod soon;
pub mod tenant;
pub mod watches;

/// Field manager of everything the operator applies, and name of its lease.
pub const FIELD_MANAGER: &str = "stoker";
