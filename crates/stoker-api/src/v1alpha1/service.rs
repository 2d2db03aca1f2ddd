//! `spec.controlPlane.service`: the Service in front of the control plane.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AdditionalMetadata;
use super::rules::{LABEL, QUALIFIED_NAME};

/// The Service in front of the control plane.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.allocateLoadBalancerNodePorts) || self.serviceType == 'LoadBalancer'"
    ).message("allocateLoadBalancerNodePorts goes with serviceType LoadBalancer alone"),
    validation = Rule::new(
        "!has(self.ipFamilies) || size(self.ipFamilies) < 2 || !has(self.ipFamilyPolicy) || \
         self.ipFamilyPolicy != 'SingleStack'"
    ).message("ipFamilies: ipFamilyPolicy SingleStack goes with one family"),
    validation = Rule::new(
        "!has(self.ipFamilies) || !has(oldSelf.ipFamilies) || size(self.ipFamilies) == 0 || \
         size(oldSelf.ipFamilies) == 0 || self.ipFamilies[0] == oldSelf.ipFamilies[0]"
    ).message("ipFamilies: the first family of a Service cannot change")
)]
pub struct ControlPlaneService {
    /// How the API server is reached.
    pub service_type: ServiceType,
    /// Labels and annotations added to the Service.
    #[serde(default)]
    pub additional_metadata: AdditionalMetadata,
    /// More ports of the Service, which lead to the same pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = Rule::new(
            "self.all(p, self.exists_one(q, q.port == p.port && q.protocol == p.protocol))"
        ).message("additionalPorts: every port and protocol can be there once"),
        merge_strategy = ListMerge::Map(vec!["name".into()])
    )]
    pub additional_ports: Vec<AdditionalPort>,
    /// Whether a `LoadBalancer` also takes ports of the nodes. Default: true, as of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Whether the Service has one IP family or two, as of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// IP families of the Service, the one that people dial first. Two without `ipFamilyPolicy` are
    /// both required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ip_families: Vec<IpFamily>,
}

/// How the API server is reached.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// From inside the management cluster.
    ClusterIP,
    /// On `networkProfile.address` at every node's port `networkProfile.port`.
    NodePort,
    /// On the address that the cloud assigns.
    LoadBalancer,
}

/// One more port of the Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalPort {
    /// Name of the port in the Service.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(format!(
        "self.matches('{LABEL}') && !(self in ['kube-apiserver', 'konnectivity-server'])"
    )).message(
        "additionalPorts: a name is a DNS label other than kube-apiserver and konnectivity-server"
    ))]
    pub name: String,
    /// Protocol. Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// What is spoken on the port, as of a Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{QUALIFIED_NAME}')")).message(
        "additionalPorts: appProtocol is a name such as http or example.com/protocol"
    ))]
    pub app_protocol: Option<String>,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Number or name of a port of an additional container; the control plane's `NetworkPolicy`
    /// opens it.
    #[schemars(extend(
        "minimum" = 1,
        "maximum" = 65535,
        "pattern" = "^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"
    ))]
    pub target_port: IntOrString,
}

/// Protocols of a port.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are core/v1 Protocol's own")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// How many IP families a Service has.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are core/v1 IPFamilyPolicy's own")]
pub enum IpFamilyPolicy {
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

/// IP families.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are core/v1 IPFamily's own")]
pub enum IpFamily {
    IPv4,
    IPv6,
}

impl Protocol {
    /// As core/v1 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl IpFamilyPolicy {
    /// As core/v1 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleStack => "SingleStack",
            Self::PreferDualStack => "PreferDualStack",
            Self::RequireDualStack => "RequireDualStack",
        }
    }
}

impl IpFamily {
    /// As core/v1 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }
}
