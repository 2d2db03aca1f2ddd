//! Routes to a tenant's Service by the hostname in the TLS handshake: an `Ingress`, or a `TLSRoute`
//! of the Gateway API.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_api::v1alpha1::{ControlPlaneIngress, ParentReference};

use crate::metadata::{metadata, with_additional};
use crate::{Endpoint, Host, Names};

/// API group of the Gateway API.
pub const TLS_ROUTE_GROUP: &str = "gateway.networking.k8s.io";
/// Its kind for TLS that is passed through.
pub const TLS_ROUTE_KIND: &str = "TLSRoute";
/// Its resource.
pub const TLS_ROUTE_PLURAL: &str = "tlsroutes";
/// Versions in which the kind is served somewhere, best first, all with the fields that are set
/// here: `v1` in the standard channel since 1.5, the others in the experimental one before.
pub const TLS_ROUTE_VERSIONS: [&str; 3] = ["v1", "v1alpha3", "v1alpha2"];

/// A `TLSRoute` of the Gateway API: the fields that are set here.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TlsRoute {
    api_version: String,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: TlsRouteSpec,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct TlsRouteSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parent_refs: Vec<ParentReference>,
    hostnames: [String; 1],
    rules: [TlsRouteRule; 1],
}

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct TlsRouteRule {
    backend_refs: [BackendReference; 1],
}

#[derive(Serialize, Clone, Debug, PartialEq)]
struct BackendReference {
    name: String,
    port: u16,
}

/// The `Ingress`, where `tenant` asks for one.
#[must_use]
pub fn ingress(tenant: &Tenant) -> Option<Ingress> {
    let asked = tenant.ingress.as_ref()?;
    let names = Names::of(tenant);
    let class = &asked.ingress_class_name;
    let backend = IngressServiceBackend {
        name: names.service.clone(),
        port: Some(ServiceBackendPort {
            number: Some(service_port(tenant).into()),
            name: None,
        }),
    };
    let everything = HTTPIngressPath {
        path: Some("/".to_owned()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend {
            service: Some(backend),
            resource: None,
        },
    };
    Some(Ingress {
        metadata: with_additional(
            metadata(tenant, &names.ingress, "ingress"),
            &asked.additional_metadata,
        ),
        spec: Some(IngressSpec {
            ingress_class_name: (!class.is_empty()).then(|| class.clone()),
            rules: Some(vec![IngressRule {
                host: Some(host_and_port(asked).0.to_owned()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![everything],
                }),
            }]),
            ..IngressSpec::default()
        }),
        status: None,
    })
}

/// The `TLSRoute` in a version of its API, where `tenant` asks for one.
#[must_use]
pub fn tls_route(tenant: &Tenant, version: &str) -> Option<TlsRoute> {
    let asked = tenant.gateway.as_ref()?;
    let names = Names::of(tenant);
    Some(TlsRoute {
        api_version: format!("{TLS_ROUTE_GROUP}/{version}"),
        kind: TLS_ROUTE_KIND,
        metadata: with_additional(
            metadata(tenant, &names.tls_route, "gateway"),
            &asked.additional_metadata,
        ),
        spec: TlsRouteSpec {
            parent_refs: asked.parent_refs.clone(),
            hostnames: [asked.hostname.clone()],
            rules: [TlsRouteRule {
                backend_refs: [BackendReference {
                    name: names.service,
                    port: service_port(tenant),
                }],
            }],
        },
    })
}

/// What nodes and people dial, where `tenant` asks for a route.
pub(crate) fn endpoint(tenant: &Tenant) -> Option<Endpoint> {
    let (name, port) = match (&tenant.ingress, &tenant.gateway) {
        (Some(ingress), _) => host_and_port(ingress),
        (None, Some(gateway)) => {
            let mut ports = gateway.parent_refs.iter().map(|parent| parent.port);
            let listener = ports.next().flatten();
            let port = listener.and_then(|port| u16::try_from(port).ok());
            (gateway.hostname.as_str(), port)
        }
        (None, None) => return None,
    };
    Some(Endpoint {
        host: Host::Name(name.to_owned()),
        port: port.unwrap_or_else(|| service_port(tenant)),
    })
}

fn host_and_port(asked: &ControlPlaneIngress) -> (&str, Option<u16>) {
    match asked.hostname.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (&asked.hostname, None),
    }
}

/// The Service's own port, behind which node ports do not matter.
fn service_port(tenant: &Tenant) -> u16 {
    tenant.network.port.unwrap_or(API_SERVER_PORT)
}
