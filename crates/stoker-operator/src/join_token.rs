//! Tokens by which machines join a tenant.
//!
//! ```text
//!  JoinToken ───┐   ┌───────────────────────────────────┐   ┌─► Secret beside it: what to type on a machine
//!  its tenant ──┼──►│ reconcile: mint once, publish,    ├───┼─► bootstrap token inside the tenant, and its rights
//!  its Secret ──┘   │ take back when it ends or goes    │   └─► status: what it is, who came, why not
//!                   └───────────────────────────────────┘
//!  requests of machines ──► attend: decision (pure) ──► the use recorded ──► approved, or denied with the reason
//!  their Nodes ───────────► attend: labels and taints of the token, then the joining taint goes
//! ```
//! What is inside a tenant proves nothing: who may join is what the `JoinToken` on the management cluster says. A tenant
//! without tokens costs nothing but a task that sleeps.

pub mod attend;
pub mod build;
pub mod decision;
mod nodes;
pub mod reconcile;
mod requests;
pub mod state;
pub mod status;
pub mod work;

pub use state::JoinTokens;
