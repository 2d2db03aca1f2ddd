//! `spec.controlPlane.ingress` and `gateway`: routes to the control plane by its hostname.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AdditionalMetadata;
use super::rules::{DNS_NAME, LABEL, is_default};

/// A DNS name and, behind a colon, a port.
const HOST_AND_PORT: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*\
     (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$";

/// An `Ingress` in front of the Service, whose controller passes TLS through.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneIngress {
    /// Labels and annotations added to the `Ingress`, such as those that ask its controller to pass
    /// TLS through.
    #[serde(default, skip_serializing_if = "is_default")]
    pub additional_metadata: AdditionalMetadata,
    /// Class of the `Ingress`; the cluster's default when left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{DNS_NAME}')")).message(
        "ingressClassName must be the name of an IngressClass"
    ))]
    pub ingress_class_name: String,
    /// Name that nodes and people dial, with a port where it is not `networkProfile.port`.
    #[schemars(length(max = 259))]
    #[x_kube(validation = Rule::new(format!("self.matches('{HOST_AND_PORT}') && !isIP(self)")).message(
        "hostname must be a lower-case DNS name such as api.example.com or api.example.com:443"
    ))]
    pub hostname: String,
}

/// A `TLSRoute` of the Gateway API to the Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneGateway {
    /// Labels and annotations added to the `TLSRoute`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub additional_metadata: AdditionalMetadata,
    /// Gateways that the route attaches to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub parent_refs: Vec<ParentReference>,
    /// Name that nodes and people dial, at the port of the first parent, else `networkProfile.port`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_NAME}') && !isIP(self)")).message(
        "hostname must be a lower-case DNS name such as api.example.com, without a port"
    ))]
    pub hostname: String,
}

/// A Gateway API `ParentReference`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// Default: `gateway.networking.k8s.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Default: `Gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Default: the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(format!("self.matches('{LABEL}')")).message(
        "namespace must be the name of a namespace"
    ))]
    pub namespace: Option<String>,
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Port of the listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// The `Ingress`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressStatus {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Where its controller listens.
    pub load_balancer: IngressLoadBalancer,
}

/// Where the controller of an `Ingress` listens.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct IngressLoadBalancer {
    /// Addresses and names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressPoint>,
}

/// An address or a name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct IngressPoint {
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// A name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// The `TLSRoute`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// The route, in the tenant's namespace.
    pub route_ref: RouteReference,
    /// Where Gateways that took the route are dialed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_points: Vec<AccessPoint>,
    /// What each Gateway says of the route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "opaque_list")]
    pub parents: Vec<RouteParent>,
}

/// Name of a route.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct RouteReference {
    /// Its name.
    pub name: String,
}

/// Where a Gateway is dialed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct AccessPoint {
    /// `Hostname`.
    #[serde(rename = "type")]
    pub kind: String,
    /// URL.
    pub value: String,
    /// Port.
    pub port: i32,
    /// URLs.
    pub urls: Vec<String>,
}

/// What a Gateway says of a route.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParent {
    /// Which Gateway.
    pub parent_ref: ParentReference,
    /// Who speaks for it.
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs` and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The Gateway API's own, which says what is in it: the CRD has to stay small.
fn opaque_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}
