//! The tunnel's end in the control plane (`spec.addons.konnectivity`): what the API server and the warden are told.

use k8s_openapi::api::core::v1::{ContainerPort, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::{TUNNEL_PORT_NAME, Tenant};
use stoker_api::v1alpha1::{DEFAULT_TUNNEL_PORT, Konnectivity, ServiceType};

/// Where agents dial in the pod, whatever the Service's port is: a change of it restarts nothing.
pub(crate) const PORT: u16 = 8132;
/// Name of that port.
const PORT_NAME: &str = "tunnel";
/// Directory, of both containers, in which the socket is.
pub(crate) const SOCKET_DIRECTORY: &str = "/run/stoker";
/// The socket at which the API server asks for streams.
pub(crate) const SOCKET: &str = "/run/stoker/tunnel.sock";

/// Of the tenant's pods and Service.
pub(crate) fn asked(tenant: &Tenant) -> Option<&Konnectivity> {
    tenant.addons.konnectivity.as_ref()
}

/// `EgressSelectorConfiguration` of the API server: only what it sends into the tenant's network goes
/// through the tunnel, not the pool nor what people configure (issuers, audit events).
pub(crate) fn egress_selector() -> String {
    format!(
        "apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds:
        udsName: {SOCKET}
"
    )
}

/// The port that agents dial. The contract's node port is the same, which with the default could not be: the cluster
/// picks one then.
pub(crate) fn service_port(tenant: &Tenant) -> Option<ServicePort> {
    let port = asked(tenant)?.server.port;
    let is_node_port = tenant.service.service_type == ServiceType::NodePort;
    Some(ServicePort {
        name: Some(TUNNEL_PORT_NAME.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(i32::from(PORT))),
        node_port: (is_node_port && port != DEFAULT_TUNNEL_PORT).then_some(port),
        ..ServicePort::default()
    })
}

/// The same in the pod.
pub(crate) fn container_port() -> ContainerPort {
    ContainerPort {
        name: Some(PORT_NAME.to_owned()),
        container_port: i32::from(PORT),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}
