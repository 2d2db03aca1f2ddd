//! `spec.networkProfile`: addresses and networks of the tenant cluster.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules::{DNS_NAME, QUALIFIED_NAME, WILDCARD_DNS_NAME, is_default};

/// Addresses and networks of the tenant cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(service_size()).message(
        "serviceCidrs: give an IPv4 network between /12 and /28, an IPv6 network between /108 and \
         /124, as kube-apiserver wants them"
    ),
    validation = Rule::new(pod_size()).message(
        "podCidrs: give an IPv4 network between /8 and /24, an IPv6 network between /48 and /64: \
         every node takes a /24 or a /64 of it"
    ),
    validation = Rule::new(apart()).message(
        "serviceCidrs and podCidrs overlap: give Services and pods networks of their own \
         (defaults: 10.96.0.0/16 and 10.244.0.0/16)"
    ),
    validation = Rule::new(dns_inside()).message(
        "dnsServiceIPs: every address must be inside a Service network (serviceCidrs, default \
         10.96.0.0/16)"
    ),
    validation = Rule::new(same(&services("self"), &services("oldSelf"))).message(
        "serviceCidrs cannot change: Services hold addresses of these networks; make a new tenant \
         with the other networks"
    ),
    validation = Rule::new(same(&pods("self"), &pods("oldSelf"))).message(
        "podCidrs cannot change: nodes and pods hold addresses of these networks; make a new \
         tenant with the other networks"
    ),
    validation = Rule::new(same(&dns("self"), &dns("oldSelf"))).message(
        "dnsServiceIPs cannot change: running kubelets and pods use these addresses; make a new \
         tenant with the other addresses"
    )
)]
pub struct NetworkProfile {
    /// Address that nodes and people dial. Left out, it is the load balancer's or the Service's;
    /// required for `NodePort`, unless there is an `advertiseAddress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).isGlobalUnicast()").message(
        "address must be an IP address that nodes can dial, not a name, loopback, link-local or \
         multicast address"
    ))]
    pub address: Option<String>,
    /// Address that nodes, people and the tenant's pods dial instead of `address` and whatever the
    /// Service has: one in front of them, such as a virtual IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).isGlobalUnicast()").message(
        "advertiseAddress must be an IP address that nodes can dial, not a name, loopback, \
         link-local or multicast address"
    ))]
    pub advertise_address: Option<String>,
    /// Port of the API server as seen by nodes and people; with `NodePort` also the node port,
    /// which must then be in the range of the management cluster (Kubernetes' default:
    /// 30000-32767). Default: 6443; with `NodePort` left out, the cluster picks one of its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Whether `address` is also an external IP of a `ClusterIP` or `NodePort` Service: nodes of the
    /// management cluster then take what is sent to it.
    #[serde(
        default,
        rename = "allowAddressAsExternalIP",
        skip_serializing_if = "is_default"
    )]
    pub allow_address_as_external_ip: bool,
    /// Networks that a `LoadBalancer` lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 49)))]
    #[x_kube(validation = Rule::new(ALL_CIDRS).message(
        "loadBalancerSourceRanges: every entry must be a network in CIDR notation such as \
         203.0.113.0/24"
    ))]
    pub load_balancer_source_ranges: Vec<String>,
    /// Class of the load balancer. It cannot change while the Service is a `LoadBalancer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{QUALIFIED_NAME}')")).message(
        "loadBalancerClass must be a name such as example.com/internal"
    ))]
    pub load_balancer_class: Option<String>,
    /// More names and addresses for the API server's serving certificate: DNS names (a leading
    /// `*.` is allowed) or IP addresses.
    #[serde(default, rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    #[x_kube(validation = Rule::new(format!(
        "self.all(san, isIP(san) || san.matches('{DNS_NAME}') || san.matches('{WILDCARD_DNS_NAME}'))"
    )).message(
        "certSANs: every entry must be an IP address or a lower-case DNS name such as \
         api.example.com or *.example.com, without scheme or port"
    ))]
    pub cert_sans: Vec<String>,
    /// DNS domain of the tenant cluster, with at least one dot. It cannot change later.
    #[serde(default = "default_cluster_domain")]
    // 253 characters of a DNS name less those of `kubernetes.default.svc.`.
    #[schemars(length(max = 230))]
    #[x_kube(
        validation = Rule::new(format!(
            "self.contains('.') && self.matches('{DNS_NAME}')"
        )).message(
            "clusterDomain must be a lower-case DNS domain with at least one dot, such as \
             cluster.local"
        ),
        validation = Rule::new("self == oldSelf").message(
            "clusterDomain cannot change: certificates, tokens and every pod's DNS settings carry \
             it; make a new tenant with the other domain"
        )
    )]
    pub cluster_domain: String,
    /// Deprecated: use `serviceCidrs`, which wins. Network of the tenant's Services.
    #[serde(
        default = "default_service_cidr",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 49))]
    #[x_kube(validation = Rule::new("self == '' || isCIDR(self)").message(
        "serviceCidr must be a network in CIDR notation such as 10.96.0.0/16"
    ))]
    pub service_cidr: Option<String>,
    /// Deprecated: use `podCidrs`, which wins. Network of the tenant's pods.
    #[serde(default = "default_pod_cidr", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 49))]
    #[x_kube(validation = Rule::new("self == '' || isCIDR(self)").message(
        "podCidr must be a network in CIDR notation such as 10.244.0.0/16"
    ))]
    pub pod_cidr: Option<String>,
    /// Networks of the tenant's Services, one per IP family, primary first.
    /// Default: `serviceCidr`'s, `10.96.0.0/16`. They cannot change later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 49)))]
    #[x_kube(
        validation = Rule::new(ALL_CIDRS).message(
            "serviceCidrs: every entry must be a network in CIDR notation such as 10.96.0.0/16"
        ),
        validation = Rule::new(ONE_PER_FAMILY).message(
            "serviceCidrs: give at most one IPv4 and one IPv6 network"
        )
    )]
    pub service_cidrs: Vec<String>,
    /// Networks of the tenant's pods, one per IP family, primary first.
    /// Default: `podCidr`'s, `10.244.0.0/16`. They cannot change later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 49)))]
    #[x_kube(
        validation = Rule::new(ALL_CIDRS).message(
            "podCidrs: every entry must be a network in CIDR notation such as 10.244.0.0/16"
        ),
        validation = Rule::new(ONE_PER_FAMILY).message(
            "podCidrs: give at most one IPv4 and one IPv6 network"
        )
    )]
    pub pod_cidrs: Vec<String>,
    /// Addresses of the cluster DNS Service, each inside a Service network.
    /// Default: the tenth address of each Service network. They cannot change later.
    #[serde(
        default,
        rename = "dnsServiceIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 8), inner(length(max = 45)))]
    #[x_kube(
        validation = Rule::new("self.all(address, isIP(address))").message(
            "dnsServiceIPs: every entry must be an IP address such as 10.96.0.10"
        ),
        merge_strategy = ListMerge::Set
    )]
    pub dns_service_ips: Vec<String>,
}

/// Services of a tenant that names no network.
pub(crate) const DEFAULT_SERVICE_CIDR: &str = "10.96.0.0/16";
/// Pods of a tenant that names no network.
pub(crate) const DEFAULT_POD_CIDR: &str = "10.244.0.0/16";

const ALL_CIDRS: &str = "self.all(network, isCIDR(network))";

const ONE_PER_FAMILY: &str = "size(self) < 2 || !self.all(network, isCIDR(network)) \
    || cidr(self[0]).ip().family() != cidr(self[1]).ip().family()";

/// CEL: the Service networks in effect.
fn services(profile: &str) -> String {
    in_effect(profile, "serviceCidrs", "serviceCidr", DEFAULT_SERVICE_CIDR)
}

/// CEL: the pod networks in effect.
fn pods(profile: &str) -> String {
    in_effect(profile, "podCidrs", "podCidr", DEFAULT_POD_CIDR)
}

/// CEL: the list, else the deprecated single field, else the default.
fn in_effect(profile: &str, list: &str, single: &str, default: &str) -> String {
    format!(
        "(has({profile}.{list}) && size({profile}.{list}) > 0 ? {profile}.{list} : \
         [has({profile}.{single}) && {profile}.{single} != '' ? {profile}.{single} : '{default}'])"
    )
}

/// CEL: the addresses asked for.
fn dns(profile: &str) -> String {
    format!("(has({profile}.dnsServiceIPs) ? {profile}.dnsServiceIPs : [])")
}

fn same(new: &str, old: &str) -> String {
    format!("{new} == {old}")
}

fn service_size() -> String {
    sizes(&services("self"), (12, 28), (108, 124))
}

fn pod_size() -> String {
    sizes(&pods("self"), (8, 24), (48, 64))
}

/// CEL: prefix lengths are in the range of their family. kubeadm's own rules: at most 20 bits and
/// at least 10 addresses for Services; 16 bits of node networks of /24 (IPv4) or /64 (IPv6), which
/// kube-controller-manager hands out, for pods.
fn sizes(networks: &str, ipv4: (u8, u8), ipv6: (u8, u8)) -> String {
    let within = |(low, high): (u8, u8)| {
        format!("cidr(c).prefixLength() >= {low} && cidr(c).prefixLength() <= {high}")
    };
    format!(
        "{networks}.all(c, !isCIDR(c) || (cidr(c).ip().family() == 4 ? {} : {}))",
        within(ipv4),
        within(ipv6)
    )
}

/// CEL: no Service network touches a pod network. A malformed one is another rule's to refuse.
fn apart() -> String {
    format!(
        "{}.all(s, !isCIDR(s) || {}.all(p, !isCIDR(p) || \
         !(cidr(s).containsCIDR(p) || cidr(p).containsCIDR(s))))",
        services("self"),
        pods("self")
    )
}

fn dns_inside() -> String {
    format!(
        "!has(self.dnsServiceIPs) || self.dnsServiceIPs.all(a, !isIP(a) || \
         {}.exists(c, !isCIDR(c) || cidr(c).containsIP(a)))",
        services("self")
    )
}

fn default_cluster_domain() -> String {
    "cluster.local".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn default_service_cidr() -> Option<String> {
    Some(DEFAULT_SERVICE_CIDR.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn default_pod_cidr() -> Option<String> {
    Some(DEFAULT_POD_CIDR.to_owned())
}

impl Default for NetworkProfile {
    fn default() -> Self {
        Self {
            address: None,
            advertise_address: None,
            port: None,
            allow_address_as_external_ip: false,
            load_balancer_source_ranges: Vec::new(),
            load_balancer_class: None,
            cert_sans: Vec::new(),
            cluster_domain: default_cluster_domain(),
            service_cidr: default_service_cidr(),
            pod_cidr: default_pod_cidr(),
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            dns_service_ips: Vec::new(),
        }
    }
}
