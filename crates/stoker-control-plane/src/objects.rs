//! What a tenant's control-plane pods are and what they mount.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use stoker_api::tenant::Tenant;

use crate::{Exposure, Keys, Leaves, Storage};
use crate::{deployment, kubeadm, secrets};

/// The entries of one Secret.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// A tenant's Secrets as they are now, by name: all that exist, since one that is not here is made
/// anew or reported as lost.
pub type ExistingSecrets = BTreeMap<String, SecretData>;

/// What a control plane is built from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The checked spec.
    pub tenant: &'a Tenant,
    /// Irreplaceable keys.
    pub keys: &'a Keys,
    /// Certificates.
    pub leaves: &'a Leaves,
    /// Where the API server is reached, as far as it is known.
    pub exposure: &'a Exposure,
    /// Where the state is.
    pub storage: &'a Storage,
    /// Whether API servers verify the certificates that kubelets serve.
    pub kubelets_verified: bool,
    /// Image of the process of ours in the pods.
    pub warden_image: &'a str,
}

/// The objects of a control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The irreplaceable keys, by name: written once, before anything that was made with them.
    pub keys: Vec<Secret>,
    /// What was made with the keys, by name.
    pub secrets: Vec<Secret>,
    /// By name.
    pub config_maps: Vec<ConfigMap>,
    /// The pods. They mount all of the above.
    pub deployment: Deployment,
}

/// Builds the objects. Equal inputs give equal objects.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> Objects {
    Objects {
        keys: secrets::keys(inputs),
        secrets: secrets::secrets(inputs),
        config_maps: kubeadm::config_maps(inputs),
        deployment: deployment::deployment(inputs),
    }
}
