//! Certificate authorities, leaf certificates, kubeconfigs, service-account keys and rotation decisions.
//!
//! Owns: every private key that Stoker makes or reads, what goes into a certificate, and when one
//! must be issued anew. Keys live in memory only, as [`PrivateKey`], which never shows them.
//!
//! Must not: read or write Secrets, know a Kubernetes client, or ask for the time (`now` is passed
//! in). Random bytes come from the operating system.
//!
//! ```text
//!  Authority::generate ──┐                       ┌─> issue(LeafRequest) ──> KeyedCertificate ──> kubeconfig
//!                        ├──> Authority ─────────┤                                │
//!  Authority::from_pem ──┘    (CA and its key)   └─> leaf_state <──── read back ──┘
//!                                                        │
//!                                    Valid { renew_at } ─┴─ Reissue(reason) ──> issue again
//! ```

mod authority;
mod certificate;
mod error;
mod escrow;
mod join;
mod key;
mod kubeconfig;
mod leaf;
mod rotation;
mod service_account;
mod signing_request;
mod subject;

pub use authority::Authority;
pub use certificate::{
    ca_hash, certificate_count, first_certificate, is_node_credential, is_signed_by, not_after,
    pins,
};
pub use error::Error;
pub use escrow::{EscrowError, EscrowKey};
pub use join::{BootstrapToken, JoinCredential, NodeRequest};
pub use key::{KeyedCertificate, PrivateKey, encryption_key};
pub use kubeconfig::{
    KubeconfigCredentials, KubeconfigFacts, KubeconfigRequest, kubeconfig, parse_kubeconfig,
};
pub use leaf::{LeafRequest, LeafUsage, MINIMUM_LIFETIME};
pub use rotation::{LeafState, ReissueReason, leaf_state, renewal};
pub use service_account::ServiceAccountKey;
pub use signing_request::SigningRequest;
