//! One address and port for all tenants.
//!
//! Owns: the way from a client's first bytes to an API server of the tenant that it names. TLS is passed through: the
//! gateway has no key, sees no request, and a client certificate reaches its API server as it is.
//!
//! Must not: end TLS, keep state that a restart would lose, or need the operator to serve the routes that it has.
//!
//! ```text
//!   cluster, or routes_file ──► routes ◄── find ── gate ◄── serve ◄── clients
//!                                                   │
//!                                                   └── stoker-sockets ──► API servers
//! ```

pub mod args;
pub mod cluster;
pub mod gate;
pub mod health;
pub mod hello;
pub mod limits;
pub mod metrics;
pub mod proxy_protocol;
pub mod refusal;
pub mod routes;
pub mod routes_file;
pub mod run;
pub mod serve;
pub mod sockets;
pub mod tenant;
pub mod waker;
