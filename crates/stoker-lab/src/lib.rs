//! A real Kubernetes management cluster, an etcd pool and worker hosts on one Linux machine.
//!
//! One implementation for people (`make up`, through the program `stoker-lab`) and for end-to-end tests
//! (through [`lab::Lab`]). Every component is upstream's own, built from its Go module at a pinned version.
//! The product never depends on this crate.
//!
//! ```text
//! machine ─┬─ bridge stoker<n> (172.30.<n>.1)
//!          ├─ host management  etcd, control plane, containerd, kubelet, kube-proxy, network daemon
//!          ├─ host pool        etcd with TLS and access control: tenants' state
//!          └─ host worker-<i>  containerd, and a kubelet that waits for `kubeadm join`
//! ```
//! Tests that need no nodes use [`bare`]: etcd and kube-apiserver as plain processes on loopback.

pub mod addresses;
pub mod bare;
pub mod command;
mod containerd;
pub mod credentials;
pub mod demo;
pub mod etcd;
pub mod handwritten;
pub mod host;
pub mod images;
pub mod lab;
mod logs;
pub mod machine;
mod machine_names;
pub mod management;
mod names;
mod nat;
pub mod network;
mod network_link;
mod node;
pub mod paths;
mod pod_network;
pub mod pool;
pub mod ports;
pub mod process;
pub mod product;
pub mod requirements;
pub mod steps;
pub mod upstream;
pub mod versions;
pub mod worker;
pub mod workload;
