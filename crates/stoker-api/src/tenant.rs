//! A tenant whose spec has been checked: what every later step works from.
//!
//! CEL refuses most mistakes at admission. What is checked again here is what makes later steps
//! infallible, and what an object stored before a rule existed may still break.

mod checks;

use std::net::IpAddr;

use ipnet::IpNet;
use kube::ResourceExt;

use crate::arguments::RefusedArgument;
use crate::storage_id::{InvalidStorageId, StorageId};
use crate::v1alpha1::{
    Addons, Audit, Authentication, ControlPlaneDeployment, ControlPlaneGateway,
    ControlPlaneIngress, ControlPlaneService, DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, Encryption,
    Kubelet, NetworkProfile, ServiceType, TenantControlPlane, WritePermissions,
};
use crate::version::{KubernetesVersion, VersionError};

/// Port on which the API server listens inside its pod; Service ports map to it.
pub const API_SERVER_PORT: u16 = 6443;

/// A tenant whose spec has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Name of the object: a DNS-1035 label.
    pub name: String,
    /// Namespace of the object and of everything made for it.
    pub namespace: String,
    /// `metadata.uid`, for owner references.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Wanted control-plane pods; 0 sleeps.
    pub replicas: i32,
    /// The pods as asked for; their number is `replicas`. Boxed: passes hold a tenant by value.
    pub deployment: Box<ControlPlaneDeployment>,
    /// The Service as asked for.
    pub service: ControlPlaneService,
    /// The `Ingress` as asked for.
    pub ingress: Option<ControlPlaneIngress>,
    /// The `TLSRoute` as asked for.
    pub gateway: Option<ControlPlaneGateway>,
    /// Release of the control plane.
    pub version: KubernetesVersion,
    /// Settings of the kubelets.
    pub kubelet: Kubelet,
    /// Admission plugins to enable beside those that are always on.
    pub admission_controllers: Vec<String>,
    /// Who is let in beside certificates and the cluster's own tokens.
    pub authentication: Authentication,
    /// Which requests the API servers record, and where.
    pub audit: Audit,
    /// What is encrypted in the pool, and with what.
    pub encryption: Encryption,
    /// Networks and names.
    pub network: Network,
    /// Add-ons inside the tenant.
    pub addons: Addons,
    /// `DataStore` asked for.
    pub data_store: Option<String>,
    /// Identity in the pool asked for, of a deleted tenant whose data is kept.
    pub storage_id: Option<StorageId>,
    /// How long the data outlives the object, seconds.
    pub data_retention_seconds: i64,
    /// Writes that are refused inside the tenant.
    pub write_permissions: WritePermissions,
}

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

/// Why a spec cannot be served. The message says what to change.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum InvalidTenant {
    #[error("metadata.{0} is missing")]
    MissingMetadata(&'static str),
    #[error("metadata.name: {0:?} must be a DNS-1035 label of at most 63 characters")]
    Name(String),
    #[error("spec.kubernetes.version: {0}")]
    Version(#[from] VersionError),
    #[error("spec.networkProfile.{field}: {value:?} is not {expected}")]
    Malformed {
        field: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error(
        "spec.networkProfile: {first} and {second} overlap; give Services and pods networks of their own"
    )]
    Overlap { first: IpNet, second: IpNet },
    #[error("spec.networkProfile.dnsServiceIPs: {0} is outside every Service network")]
    DnsOutsideServices(IpAddr),
    #[error(
        "spec.networkProfile.dnsServiceIPs: {0} belongs to the kubernetes Service, the first address of its network; choose another"
    )]
    DnsOnKubernetesService(IpAddr),
    #[error("spec.networkProfile.{0}: two networks must be of different IP families")]
    SameFamily(&'static str),
    #[error(
        "spec.networkProfile.address is required with serviceType NodePort: give the address of the nodes that people dial"
    )]
    NodePortWithoutAddress,
    #[error(
        "spec.kubernetes.admissionControllers: kube-apiserver {version} has no usable plugin {name}"
    )]
    AdmissionController {
        version: KubernetesVersion,
        name: String,
    },
    #[error("spec.controlPlane.deployment.extraArgs.{field}: {refused}")]
    Argument {
        field: &'static str,
        refused: RefusedArgument,
    },
    #[error(
        "spec.controlPlane.deployment.additionalVolumes: {0} is not exactly one of configMap, emptyDir, projected and secret, or asks for a token of the management cluster"
    )]
    Volume(String),
    #[error(
        "spec.kubernetes.audit.log.volume: {0} is not the name of an emptyDir in spec.controlPlane.deployment.additionalVolumes"
    )]
    AuditVolume(String),
    #[error("spec.kubernetes.encryption: {0}")]
    Encryption(&'static str),
    #[error("spec.dataStoreSchema: {0}")]
    StorageId(#[from] InvalidStorageId),
}

impl Tenant {
    /// Checks and parses `object`'s spec.
    ///
    /// # Errors
    /// The first rule that the spec breaks.
    pub fn validate(object: &TenantControlPlane) -> Result<Self, InvalidTenant> {
        let spec = &object.spec;
        let name = object.name_any();
        if !is_dns_1035_label(&name) {
            return Err(InvalidTenant::Name(name));
        }
        let network = Network::validate(&spec.network_profile)?;
        if spec.control_plane.service.service_type == ServiceType::NodePort
            && network.address.is_none()
            && network.advertise_address.is_none()
        {
            return Err(InvalidTenant::NodePortWithoutAddress);
        }
        let version: KubernetesVersion = spec.kubernetes.version.parse()?;
        checks::admission_controllers(version, &spec.kubernetes.admission_controllers)?;
        let deployment = &spec.control_plane.deployment;
        checks::arguments(deployment)?;
        checks::volumes(deployment)?;
        checks::audit_log(spec.kubernetes.audit.as_ref(), deployment)?;
        let encryption = spec.kubernetes.encryption.clone().unwrap_or_default();
        checks::encryption(&encryption, deployment)?;
        Ok(Self {
            name,
            namespace: object
                .namespace()
                .ok_or(InvalidTenant::MissingMetadata("namespace"))?,
            uid: object.uid().ok_or(InvalidTenant::MissingMetadata("uid"))?,
            generation: object.metadata.generation.unwrap_or_default(),
            replicas: deployment.replicas,
            deployment: deployment.clone(),
            service: spec.control_plane.service.clone(),
            ingress: spec.control_plane.ingress.clone(),
            gateway: spec.control_plane.gateway.clone(),
            version,
            kubelet: spec.kubernetes.kubelet.clone(),
            admission_controllers: spec.kubernetes.admission_controllers.clone(),
            authentication: spec.kubernetes.authentication.clone(),
            audit: spec.kubernetes.audit.clone().unwrap_or_default(),
            encryption,
            network,
            addons: spec.addons.clone(),
            data_store: spec.data_store.clone(),
            storage_id: spec
                .data_store_schema
                .as_deref()
                .map(str::parse)
                .transpose()?,
            data_retention_seconds: spec.deletion.data_retention_seconds,
            write_permissions: spec.write_permissions,
        })
    }
}

impl Network {
    fn validate(profile: &NetworkProfile) -> Result<Self, InvalidTenant> {
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

fn is_dns_1035_label(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}
