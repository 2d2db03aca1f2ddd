//! The pool against real etcd: giving, healing, retaining and purging tenants, and every way in
//! which a pool can be unfit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "etcd_support/clients.rs"]
mod clients;
#[path = "etcd_support/cluster.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod cluster;
#[path = "etcd_support/fixture.rs"]
mod fixture;
#[path = "etcd_support/pool_claims.rs"]
mod pool_claims;
#[path = "etcd_support/pool_fitness.rs"]
mod pool_fitness;
#[path = "etcd_support/pool_release.rs"]
mod pool_release;
