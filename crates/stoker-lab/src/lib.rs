//! A real management cluster and worker hosts on one Linux machine.

pub mod bare;
pub mod command;
pub mod credentials;
pub mod network;
pub mod steps;
pub mod upstream;
pub mod versions;
