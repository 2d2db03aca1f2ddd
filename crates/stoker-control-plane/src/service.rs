//! The Service in front of a tenant's API servers.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_api::v1alpha1::ServiceType;

use crate::Names;
use crate::metadata::{metadata, pod_match, with_additional};

/// Name of the API server's port in the Service and in the pod.
pub const SERVICE_PORT_NAME: &str = "kube-apiserver";

/// The Service in front of `tenant`'s API servers.
///
/// Its port is the one that people asked for; pods listen on a constant one, so a change of port
/// restarts nothing. With `NodePort` and no port asked for, the cluster picks a node port.
#[must_use]
pub fn service(tenant: &Tenant) -> Service {
    let port = tenant.network.port;
    let node_port = match tenant.service_type {
        ServiceType::NodePort => port.map(i32::from),
        ServiceType::ClusterIP | ServiceType::LoadBalancer => None,
    };
    let ours = metadata(tenant, &Names::of(tenant).service, "service");
    Service {
        metadata: with_additional(ours, &tenant.service_metadata),
        spec: Some(ServiceSpec {
            type_: Some(
                match tenant.service_type {
                    ServiceType::ClusterIP => "ClusterIP",
                    ServiceType::NodePort => "NodePort",
                    ServiceType::LoadBalancer => "LoadBalancer",
                }
                .to_owned(),
            ),
            selector: Some(pod_match(tenant)),
            ports: Some(vec![ServicePort {
                name: Some(SERVICE_PORT_NAME.to_owned()),
                port: i32::from(port.unwrap_or(API_SERVER_PORT)),
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(SERVICE_PORT_NAME.to_owned())),
                node_port,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
