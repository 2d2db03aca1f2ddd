//! What stands around the control-plane pods. None of it needs the tenant's keys, so it is kept up while they
//! are lost.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use stoker_api::tenant::Tenant;

use crate::{StoragePeer, disruption, network_policy, static_admission};

/// What stands around the control-plane pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Guards {
    /// What the pods may reach and be reached on.
    pub network_policy: NetworkPolicy,
    /// What their API server refuses by itself, where it takes policies from files.
    pub static_admission: Option<ConfigMap>,
    /// At two replicas and more.
    pub pod_disruption_budget: Option<PodDisruptionBudget>,
}

/// Builds them. `endpoints` and `peers` are the pool's members and where they lead to;
/// `management_networks` are those of the management cluster (nodes, pods, Services, whatever else is
/// behind them, the hosts of all pools), which control-plane pods must not reach.
#[must_use]
pub fn guards(
    tenant: &Tenant,
    endpoints: &[String],
    peers: &[StoragePeer],
    management_networks: &[IpNet],
) -> Guards {
    let closed = network_policy::closed(management_networks, peers);
    Guards {
        network_policy: network_policy::network_policy(tenant, endpoints, peers, &closed),
        static_admission: static_admission::config_map(tenant, &closed),
        pod_disruption_budget: disruption::pod_disruption_budget(tenant),
    }
}
