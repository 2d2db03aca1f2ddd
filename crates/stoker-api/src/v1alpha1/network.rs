//! `spec.networkProfile`: addresses and networks of the tenant cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses and networks of the tenant cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProfile {
    /// Address that nodes and people dial. Left out, it is the load balancer's or the Service's;
    /// required for `NodePort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port of the API server as seen by nodes and people; with `NodePort` also the node port.
    /// Default: 6443; with `NodePort` left out, the cluster picks one of its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// More names and addresses for the API server's serving certificate.
    #[serde(default, rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// DNS domain of the tenant cluster. Default: `cluster.local`. It cannot change later.
    #[serde(default = "default_cluster_domain")]
    pub cluster_domain: String,
    /// Deprecated: use `serviceCidrs`. Network of the tenant's Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<String>,
    /// Deprecated: use `podCidrs`. Network of the tenant's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Networks of the tenant's Services, one per IP family, primary first.
    /// Default: `10.96.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub service_cidrs: Vec<String>,
    /// Networks of the tenant's pods, one per IP family, primary first. Default: `10.244.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub pod_cidrs: Vec<String>,
    /// Addresses of the cluster DNS Service, each inside a Service network.
    /// Default: the tenth address of each Service network.
    #[serde(
        default,
        rename = "dnsServiceIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 8))]
    pub dns_service_ips: Vec<String>,
}

fn default_cluster_domain() -> String {
    "cluster.local".to_owned()
}

impl Default for NetworkProfile {
    fn default() -> Self {
        Self {
            address: None,
            port: None,
            cert_sans: Vec::new(),
            cluster_domain: default_cluster_domain(),
            service_cidr: None,
            pod_cidr: None,
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            dns_service_ips: Vec::new(),
        }
    }
}
