//! What is built from a tenant, from its manifest to every flag, file and permission.

mod exposure;
mod files;
mod golden;
mod keys;
mod leaves;
mod network_policy;
mod pod_security;
mod redaction;
mod restarts;
mod scenario;
mod upstream;
