//! The Service in front of a tenant's API servers.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::{API_SERVER_PORT, API_SERVER_PORT_NAME, Tenant};
use stoker_api::v1alpha1::{AdditionalPort, IpFamilyPolicy, ServiceType};

use crate::metadata::{metadata, pod_match, with_additional};
use crate::{Names, tunnel};

/// The Service in front of `tenant`'s API servers.
///
/// Its port is the one that people asked for; pods listen on a constant one, so a change of port
/// restarts nothing. With `NodePort` and no port asked for, the cluster picks a node port.
#[must_use]
pub fn service(tenant: &Tenant) -> Service {
    let asked = &tenant.service;
    let ours = metadata(tenant, &Names::of(tenant).service, "service");
    let mut ports = vec![api_server_port(tenant)];
    ports.extend(tunnel::service_port(tenant));
    ports.extend(asked.additional_ports.iter().map(additional_port));
    let families = asked.ip_families.iter();
    let families: Vec<_> = families.map(|family| family.name().to_owned()).collect();
    let both = (families.len() == 2).then_some(IpFamilyPolicy::RequireDualStack);
    let policy = asked.ip_family_policy.or(both);
    Service {
        metadata: with_additional(ours, &asked.additional_metadata),
        spec: Some(ServiceSpec {
            type_: Some(
                match asked.service_type {
                    ServiceType::ClusterIP => "ClusterIP",
                    ServiceType::NodePort => "NodePort",
                    ServiceType::LoadBalancer => "LoadBalancer",
                }
                .to_owned(),
            ),
            selector: Some(pod_match(tenant)),
            ports: Some(ports),
            ip_family_policy: policy.map(|policy| policy.name().to_owned()),
            ip_families: (!families.is_empty()).then_some(families),
            external_ips: external_ips(tenant),
            ..load_balancer(tenant)
        }),
        status: None,
    }
}

fn api_server_port(tenant: &Tenant) -> ServicePort {
    let port = tenant.network.port;
    let node_port = match tenant.service.service_type {
        ServiceType::NodePort => port.map(i32::from),
        ServiceType::ClusterIP | ServiceType::LoadBalancer => None,
    };
    ServicePort {
        name: Some(API_SERVER_PORT_NAME.to_owned()),
        port: i32::from(port.unwrap_or(API_SERVER_PORT)),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(API_SERVER_PORT_NAME.to_owned())),
        node_port,
        ..ServicePort::default()
    }
}

fn additional_port(asked: &AdditionalPort) -> ServicePort {
    ServicePort {
        name: Some(asked.name.clone()),
        port: asked.port,
        protocol: Some(asked.protocol.name().to_owned()),
        app_protocol: asked.app_protocol.clone(),
        target_port: Some(asked.target_port.clone()),
        node_port: None,
    }
}

/// The address that people dial, where it is not the load balancer's.
fn external_ips(tenant: &Tenant) -> Option<Vec<String>> {
    let network = &tenant.network;
    let asked = network.allow_address_as_external_ip
        && tenant.service.service_type != ServiceType::LoadBalancer;
    let address = network.address.filter(|_| asked);
    address.map(|address| vec![address.to_string()])
}

/// What only a `LoadBalancer` may have.
fn load_balancer(tenant: &Tenant) -> ServiceSpec {
    if tenant.service.service_type != ServiceType::LoadBalancer {
        return ServiceSpec::default();
    }
    let ranges = tenant.network.load_balancer_source_ranges.iter();
    let ranges: Vec<_> = ranges.map(ToString::to_string).collect();
    ServiceSpec {
        allocate_load_balancer_node_ports: tenant.service.allocate_load_balancer_node_ports,
        load_balancer_class: tenant.network.load_balancer_class.clone(),
        load_balancer_source_ranges: (!ranges.is_empty()).then_some(ranges),
        ..ServiceSpec::default()
    }
}
