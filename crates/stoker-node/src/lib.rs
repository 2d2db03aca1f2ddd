//! The agent on a tenant's node.
//!
//! Owns: the tunnel's far end, by which the tenant's API servers reach this node, and from it the pods and
//! Services of its cluster; and the API server's address on this node, for pods, whose clients dial addresses.
//!
//! Must not: listen for anybody but this machine (unless it is told where its metrics are to be asked for), have the tunnel dial an address that its egress rules refuse, or send a key
//! anywhere.
//!
//! ```text
//!  kubelet's certificates ──► tunnel::credentials ─┐
//!                                                  ├─► tunnel: one link to each warden ◄══ CONNECT ══ warden
//!  --server ───────────────────────────────────────┘         └─► egress ──► kubelet, pod, Service
//!  pods, by their Service kubernetes ──► listener ──► gateway, or API servers
//! ```

mod dial;
pub mod gpu;
pub mod health;
pub mod listener;
mod shared_port;
pub mod tunnel;
