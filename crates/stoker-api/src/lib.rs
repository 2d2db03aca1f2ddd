//! The kinds of `stoker.dev/v1alpha1`: types, defaults, CEL rules and printer columns, and the
//! identity of a tenant in the pool.
//!
//! This crate knows what users may write and what the operator answers. It talks to nobody: no
//! client, no clock. What can be refused at admission is refused by CEL in the CRDs generated
//! from these types.

pub mod admission_plugins;
pub mod arguments;
pub mod base_domain;
pub mod cron;
pub mod feature_gates;
pub mod host_agent;
pub mod labels;
pub mod node_name;
pub mod restricted;
pub mod runtime_config;
mod spans;
pub mod storage_id;
pub mod tenant;
pub mod v1alpha1;
pub mod version;
pub mod wake;

pub use base_domain::BaseDomain;
pub use cron::Cron;
pub use node_name::is_node_name;
pub use storage_id::StorageId;
