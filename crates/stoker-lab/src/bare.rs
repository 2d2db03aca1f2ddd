//! etcd and kube-apiserver as plain processes on loopback: the smallest real thing for a test.
//!
//! Each fixture has its own temporary directory and free ports and ends with its value, and also when the
//! test process is killed.

mod api_server;
mod cable;
mod container;
mod controller_manager;
mod etcd;
mod guarded;

pub use api_server::{BareApiServer, ServerSettings};
pub use cable::Cable;
pub use container::{BareContainer, ContainerFiles, MountedFiles};
pub use controller_manager::BareControllerManager;
pub use etcd::BareEtcd;
