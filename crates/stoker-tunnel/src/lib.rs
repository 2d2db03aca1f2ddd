//! What both ends of the tunnel share.
//!
//! Owns: the protocol between the warden in a control-plane pod (near end) and `stoker-node` on a node
//! (far end), how bytes pass between a socket and a stream and are counted, whether the other end still answers, and
//! what a node's certificates say.
//!
//! Must not: dial, listen, read files, or decide who may do what.
//!
//! ```text
//!   near end (HTTP/2 client)                       far end (HTTP/2 server, which dialled)
//!     GET /hello   server id, count ─────────────► 200, its kubelet's serving certificate; or 409: known already
//!     CONNECT host:port ─────────────────────────► 200, then bytes both ways; or 403, 502, 503, 504 and why
//!     PING ◄─────────────────────────────────────► PING
//!                                   GOAWAY ◄────── no new streams, open ones run on
//! ```
//!
//! The protocol's version is in [`wire::ALPN`]. See `docs/decisions/0017-tunnel.md`.

pub mod ahead;
mod chunks;
pub mod counted;
mod flow;
pub mod heap;
pub mod identity;
mod piece;
pub mod pulse;
pub mod relay;
pub mod wire;
