//! The only code that writes to an API server: server-side apply, status, events, lease.
//!
//! ```text
//!   desired objects ──► Writer::apply_all ──► API server
//!                          │    ▲                │
//!                  records │    │ skips what     │ metadata-only watches
//!                          ▼    │ is current     ▼
//!                         Ledger ◄────────── watch_owned
//! ```
//! An operator keeps one [`Ledger`] per tenant and cluster side. A pass applies everything it
//! wants; what the ledger knows to be so already costs nothing. A change that comes back from a
//! watch is looked up in the ledger: an echo of our own write wakes nobody, tampering does.
//!
//! What to apply, when, and for whom is decided elsewhere.

mod apply;
mod call;
pub mod conditions;
mod desired;
mod error;
mod events;
mod exchange;
mod fingerprint;
mod lease;
mod ledger;
mod management_client;
mod nodes;
mod observe;
mod once;
mod readiness;
mod requests;
#[cfg(test)]
mod scenario;
mod signing;
mod sparse;
mod status;
mod tenant_client;
mod try_out;
mod wire;

pub use apply::{Outcome, Writer};
pub use desired::{Desired, FieldPath, ObjectKey};
pub use error::{Error, category_of};
pub use events::Events;
pub use fingerprint::Fingerprint;
pub use lease::{Election, Leadership, Lost};
pub use ledger::{Ledger, Observation};
pub use management_client::management_client;
pub use nodes::{NodeFound, delete_node, equip_node, node};
pub use observe::{Change, OwnedWatch, watch_owned};
pub use once::Stored;
pub use readiness::{ready, roles_made};
pub use requests::{CountRequests, Counted, Exchange, RequestCounter};
pub use signing::{
    Answer, KUBELET_CLIENT, KUBELET_SERVING, KubeletRequest, NodeAddresses, answer,
    kubelet_request, node_addresses,
};
pub use sparse::SparseMeta;
pub use status::{patch_status, replace_status, write_status};
pub use tenant_client::{TenantEndpoint, tenant_client};
pub use try_out::Tried;
