//! `CoreDNS` (`kubeadm init phase addon coredns`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::Addon;

use crate::component::CORE_DNS;
use crate::object_meta::{KUBE_SYSTEM, namespaced, string_map, with_labels};
use crate::{TenantObjects, rbac, release};

mod deployment;

/// Name of the Deployment, `ConfigMap` and `ServiceAccount`.
const NAME: &str = "coredns";
const CLUSTER_ROLE: &str = "system:coredns";
/// Label of the pods; the Service keeps the name of `CoreDNS`' predecessor.
const SELECTOR: &[(&str, &str)] = &[("k8s-app", SERVICE)];
const SERVICE: &str = "kube-dns";
const METRICS_PORT: i32 = 9153;

/// The entry of the `ConfigMap` that tenants may change.
const COREFILE: &str = "Corefile";

/// Where `config_map` has something that is the tenant's as soon as the tenant changes it: the Corefile, in which
/// people forward domains of theirs. kubeadm keeps it too.
#[must_use]
pub fn left_to_tenant(config_map: &ConfigMap) -> Option<&'static [&'static str]> {
    let meta = &config_map.metadata;
    let is_ours = meta.name.as_deref() == Some(NAME);
    is_ours.then_some(&["data", COREFILE])
}

pub(crate) fn add(objects: &mut TenantObjects, tenant: &Tenant, addon: &Addon) {
    objects.config_maps.push(ConfigMap {
        metadata: namespaced(CORE_DNS, KUBE_SYSTEM, NAME),
        data: Some(string_map(&[(
            COREFILE,
            &corefile(&tenant.network.cluster_domain),
        )])),
        ..ConfigMap::default()
    });
    objects.service_accounts.push(ServiceAccount {
        metadata: namespaced(CORE_DNS, KUBE_SYSTEM, NAME),
        ..ServiceAccount::default()
    });
    let read = &["list", "watch"];
    objects.cluster_roles.push(rbac::cluster_role(
        CORE_DNS,
        CLUSTER_ROLE,
        vec![
            rbac::rule("", &["endpoints", "services", "pods", "namespaces"], read),
            rbac::rule("discovery.k8s.io", &["endpointslices"], read),
        ],
    ));
    objects
        .cluster_role_bindings
        .push(rbac::cluster_role_binding(
            CORE_DNS,
            CLUSTER_ROLE,
            CLUSTER_ROLE,
            rbac::service_account(NAME),
        ));
    objects
        .services
        .push(service(&tenant.network.dns_service_ips));
    let image = release::core_dns_image(addon, tenant.version);
    objects
        .deployments
        .push(deployment::build(image, tenant.version));
}

/// kubeadm's Corefile, the same from 1.33 to 1.36.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :{METRICS_PORT}
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// The Service `kube-dns`. kubeadm gives it one address; here it has the first of each family that
/// the spec lists, so that a dual-stack tenant asks DNS over both.
fn service(addresses: &[IpAddr]) -> Service {
    let first = addresses.first();
    let second = addresses
        .iter()
        .find(|address| first.is_some_and(|first| first.is_ipv4() != address.is_ipv4()));
    let both = first.zip(second).map(|(first, second)| [first, second]);
    Service {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            annotations: Some(string_map(&[
                ("prometheus.io/port", &METRICS_PORT.to_string()),
                ("prometheus.io/scrape", "true"),
            ])),
            ..with_labels(
                namespaced(CORE_DNS, KUBE_SYSTEM, SERVICE),
                &[
                    SELECTOR[0],
                    ("kubernetes.io/cluster-service", "true"),
                    ("kubernetes.io/name", "CoreDNS"),
                ],
            )
        },
        spec: Some(ServiceSpec {
            cluster_ip: first.map(ToString::to_string),
            cluster_ips: both.map(|both| both.map(ToString::to_string).to_vec()),
            ip_families: both.map(|both| both.map(family).to_vec()),
            ip_family_policy: both.map(|_| "RequireDualStack".to_owned()),
            ports: Some(vec![
                port("dns", 53, "UDP"),
                port("dns-tcp", 53, "TCP"),
                port("metrics", METRICS_PORT, "TCP"),
            ]),
            selector: Some(string_map(SELECTOR)),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn family(address: &IpAddr) -> String {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()
}

fn port(name: &str, number: i32, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        protocol: Some(protocol.to_owned()),
        target_port: Some(IntOrString::Int(number)),
        ..ServicePort::default()
    }
}
