//! What is built from a tenant, from its manifest to every flag, file and permission.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

mod api_server;
mod audit;
mod authentication;
mod authorization;
mod cis;
mod encryption;
mod exposure;
mod files;
mod flag_oracle;
mod golden;
mod hibernation;
mod keys;
mod leaves;
mod network_policy;
mod options;
mod pod_security;
mod properties;
mod redaction;
mod restarts;
mod routes;
mod scenario;
mod static_admission;
mod upstream;
