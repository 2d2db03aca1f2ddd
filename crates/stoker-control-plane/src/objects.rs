//! Everything of a tenant's control plane but its Service.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use stoker_api::tenant::Tenant;

use crate::{Exposure, Keys, Leaves, Storage};
use crate::{deployment, disruption, kubeadm, network_policy, secrets};

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
    /// Networks of the management cluster (nodes, pods, Services, whatever else is behind them),
    /// which control-plane pods must not reach.
    pub management_networks: &'a [IpNet],
}

/// The objects of a control plane, none of which waits for another.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// By name.
    pub secrets: Vec<Secret>,
    /// By name.
    pub config_maps: Vec<ConfigMap>,
    /// The pods.
    pub deployment: Deployment,
    /// At two replicas and more.
    pub pod_disruption_budget: Option<PodDisruptionBudget>,
    /// What the pods may reach and be reached on.
    pub network_policy: NetworkPolicy,
}

/// Builds the objects. Equal inputs give equal objects.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> Objects {
    Objects {
        secrets: secrets::secrets(inputs),
        config_maps: kubeadm::config_maps(inputs),
        deployment: deployment::deployment(inputs),
        pod_disruption_budget: disruption::pod_disruption_budget(inputs.tenant),
        network_policy: network_policy::network_policy(inputs),
    }
}
