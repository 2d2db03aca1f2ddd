//! The agent on a tenant's node.
//!
//! Owns: the tunnel's far end, by which the tenant's API servers reach this node, and from it the pods and
//! Services of its cluster.
//!
//! Must not: listen for anybody but this machine, dial an address that its egress rules refuse, or send a key
//! anywhere.
//!
//! ```text
//!  kubelet's certificates ──► tunnel::credentials ─┐
//!                                                  ├─► tunnel: one link to each warden ◄══ CONNECT ══ warden
//!  --server ───────────────────────────────────────┘         └─► egress ──► kubelet, pod, Service
//! ```

pub mod tunnel;
