//! From a validated tenant to the objects of its control plane on the management cluster.
//!
//! Owns: what the objects are called, every flag, mount, probe and permission of the three
//! components, which certificates they use and what may be regenerated. Everything is a function of
//! its arguments: equal arguments give equal objects, in a stable order.
//!
//! Must not: know a Kubernetes client, read a clock (`now` is passed in), or make randomness other
//! than through `stoker-pki`.
//!
//! ```text
//!  Tenant ──┬─────────────► service() ────────► Service ──► exposure() ──┐
//!           │                                                            │
//!  Secrets ─┼─► keys()   ─► Keys   (irreplaceable: lost ones are an error)│
//!           │                  │                                         ▼
//!           ├─► leaves() ─► Leaves (kept while good, else issued anew) ─► build() ─► Objects
//!           │                                                  Storage ───┘
//!           ├─► guards() ─► NetworkPolicy, PodDisruptionBudget, policies of the API server's own
//!           ├─► ingress(), tls_route()   only where they are asked for
//!           └─► trial() ─► Trial         what the spec would give, for admission to try out
//! ```

mod audit;
mod authentication;
mod authorization;
mod deployment;
mod disruption;
mod encryption;
pub mod entry;
mod exposure;
mod generated_kubeconfig;
mod guards;
mod issuers;
mod keys;
mod kubeadm;
mod leaves;
mod metadata;
mod names;
mod network_policy;
mod node_listener;
mod objects;
mod rotating_authority;
mod routes;
mod secrets;
mod service;
mod static_admission;
mod storage;
mod trial;
mod tunnel;

pub use authentication::{InvalidAuthentication, InvalidExpression, check_authentication};
pub use deployment::RESTART_CHECKSUM;
pub use encryption::{
    Advance, EncryptionError, EncryptionKeys, Leftover, Observed, Refusal, Servers, Step, Stored,
};
pub use exposure::{Endpoint, Exposure, Host, exposure};
pub use generated_kubeconfig::{generated_kubeconfig, generated_name};
pub use guards::{Guards, guards};
pub use keys::{Keys, KeysError, Loss, StoredKeys, keys};
pub use kubeadm::cluster_configuration;
pub use leaves::{Leaves, leaves, serving_names};
pub use metadata::COMPONENT;
pub use names::Names;
pub use node_listener::NodeListeners;
pub use objects::{ExistingSecrets, Inputs, Objects, SecretData, build};
pub use rotating_authority::{
    AuthorityAdvance, AuthorityObserved, AuthorityRecordError, AuthorityRole, AuthorityStep,
    RotatingAuthority,
};
pub use routes::{
    TLS_ROUTE_GROUP, TLS_ROUTE_KIND, TLS_ROUTE_PLURAL, TLS_ROUTE_VERSIONS, TlsRoute, ingress,
    tls_route,
};
pub use service::service;
pub use storage::{PodPort, Storage, StoragePeer, storage_client_request};
pub use trial::{StandIns, Trial, TrialError, trial};
