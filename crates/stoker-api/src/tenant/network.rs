//! Networks and names of a tenant cluster.

use std::net::IpAddr;

use ipnet::IpNet;

use super::InvalidTenant;
use crate::v1alpha1::{DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, NetworkProfile};

/// Networks and names of a tenant cluster, parsed and defaulted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address that people asked for.
    pub address: Option<IpAddr>,
    /// Address to dial instead.
    pub advertise_address: Option<IpAddr>,
    /// Port that people asked for.
    pub port: Option<u16>,
    /// Whether that address is an external IP of the Service.
    pub allow_address_as_external_ip: bool,
    /// Networks that a load balancer lets in.
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// Class of the load balancer.
    pub load_balancer_class: Option<String>,
    /// More names and addresses for the serving certificate, as given.
    pub cert_sans: Vec<String>,
    /// DNS domain of the tenant cluster.
    pub cluster_domain: String,
    /// Service networks, primary first; at least one.
    pub service_cidrs: Vec<IpNet>,
    /// Pod networks, primary first; at least one.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of the cluster DNS Service; at least one.
    pub dns_service_ips: Vec<IpAddr>,
}

impl Network {
    /// Cluster IPs of the tenant's `kubernetes` Service: the first address of each Service network.
    #[must_use]
    pub fn kubernetes_service_ips(&self) -> Vec<IpAddr> {
        self.service_cidrs
            .iter()
            .filter_map(|net| nth_address(*net, 1))
            .collect()
    }

    /// Service networks as `--service-cluster-ip-range` wants them.
    #[must_use]
    pub fn service_cidr_flag(&self) -> String {
        join(&self.service_cidrs)
    }

    /// Pod networks as `--cluster-cidr` wants them.
    #[must_use]
    pub fn pod_cidr_flag(&self) -> String {
        join(&self.pod_cidrs)
    }
}

impl Network {
    pub(super) fn validate(profile: &NetworkProfile) -> Result<Self, InvalidTenant> {
        let service_cidrs = networks(
            "serviceCidrs",
            &profile.service_cidrs,
            profile.service_cidr.as_deref(),
            DEFAULT_SERVICE_CIDR,
        )?;
        let pod_cidrs = networks(
            "podCidrs",
            &profile.pod_cidrs,
            profile.pod_cidr.as_deref(),
            DEFAULT_POD_CIDR,
        )?;
        for first in &service_cidrs {
            for second in &pod_cidrs {
                if first.contains(second) || second.contains(first) {
                    return Err(InvalidTenant::Overlap {
                        first: *first,
                        second: *second,
                    });
                }
            }
        }
        Ok(Self {
            address: address("address", profile.address.as_deref())?,
            advertise_address: address("advertiseAddress", profile.advertise_address.as_deref())?,
            port: profile
                .port
                .map(|port| {
                    u16::try_from(port).map_err(|_| InvalidTenant::Malformed {
                        field: "port",
                        value: port.to_string(),
                        expected: "a port between 1 and 65535",
                    })
                })
                .transpose()?,
            allow_address_as_external_ip: profile.allow_address_as_external_ip,
            load_balancer_source_ranges: profile
                .load_balancer_source_ranges
                .iter()
                .map(|range| parse("loadBalancerSourceRanges", range, NETWORK))
                .collect::<Result<_, _>>()?,
            load_balancer_class: profile.load_balancer_class.clone(),
            cert_sans: profile.cert_sans.clone(),
            cluster_domain: profile.cluster_domain.clone(),
            dns_service_ips: dns_service_ips(&profile.dns_service_ips, &service_cidrs)?,
            service_cidrs,
            pod_cidrs,
        })
    }
}

fn address(field: &'static str, value: Option<&str>) -> Result<Option<IpAddr>, InvalidTenant> {
    let parse = |value| parse(field, value, "an IP address");
    value.map(parse).transpose()
}

/// What a malformed network should have been.
const NETWORK: &str = "a network in CIDR notation";

fn networks(
    field: &'static str,
    list: &[String],
    single: Option<&str>,
    default: &str,
) -> Result<Vec<IpNet>, InvalidTenant> {
    let given: Vec<&str> = if list.is_empty() {
        vec![single.filter(|value| !value.is_empty()).unwrap_or(default)]
    } else {
        list.iter().map(String::as_str).collect()
    };
    let parsed = given
        .into_iter()
        .map(|value| parse::<IpNet>(field, value, NETWORK).map(|n| n.trunc()))
        .collect::<Result<Vec<_>, _>>()?;
    if let [first, second] = parsed[..]
        && first.addr().is_ipv4() == second.addr().is_ipv4()
    {
        return Err(InvalidTenant::SameFamily(field));
    }
    Ok(parsed)
}

fn dns_service_ips(
    given: &[String],
    service_cidrs: &[IpNet],
) -> Result<Vec<IpAddr>, InvalidTenant> {
    if given.is_empty() {
        return Ok(service_cidrs
            .iter()
            .filter_map(|net| nth_address(*net, 10))
            .collect());
    }
    given
        .iter()
        .map(|value| {
            let address = parse("dnsServiceIPs", value, "an IP address")?;
            if !service_cidrs.iter().any(|net| net.contains(&address)) {
                Err(InvalidTenant::DnsOutsideServices(address))
            } else if service_cidrs
                .iter()
                .any(|net| nth_address(*net, 1) == Some(address))
            {
                Err(InvalidTenant::DnsOnKubernetesService(address))
            } else {
                Ok(address)
            }
        })
        .collect()
}

fn parse<T: std::str::FromStr>(
    field: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, InvalidTenant> {
    value.parse().map_err(|_| InvalidTenant::Malformed {
        field,
        value: value.to_owned(),
        expected,
    })
}

/// The `n`th address of a network, counted from its base, as `kube-apiserver` and kubeadm do for
/// the `kubernetes` (1) and DNS (10; 0x0a in IPv6) Services.
fn nth_address(net: IpNet, n: u32) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).checked_add(n)?.into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(u128::from(n))?.into()),
    };
    net.contains(&address).then_some(address)
}

fn join(networks: &[IpNet]) -> String {
    networks
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
