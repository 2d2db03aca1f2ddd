//! A tenant whose spec has been checked: what every later step works from.
//!
//! CEL refuses most mistakes at admission. What is checked again here is what makes later steps
//! infallible, and what an object stored before a rule existed may still break.

mod checks;
mod hibernation;
mod network;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kube::ResourceExt;

use crate::arguments::RefusedArgument;
use crate::feature_gates::RefusedGate;
use crate::runtime_config::RefusedVersion;
use crate::storage_id::{InvalidStorageId, StorageId};
use crate::v1alpha1::{
    Addons, ApiPriority, Audit, Authentication, CertificateAuthority, ControlPlaneDeployment,
    ControlPlaneGateway, ControlPlaneIngress, ControlPlaneService, Encryption, Kubelet,
    ServiceType, Size, TenantControlPlane, WritePermissions,
};
use crate::version::{KubernetesVersion, VersionError};
use crate::{feature_gates, runtime_config};

pub use hibernation::{Hibernation, InvalidHibernation};
pub use network::Network;

/// Port on which the API server listens inside its pod; Service ports map to it.
pub const API_SERVER_PORT: u16 = 6443;
/// Name of that port in the pod, in the tenant's Service and in its `EndpointSlice`s.
pub const API_SERVER_PORT_NAME: &str = "kube-apiserver";
/// Name of the port of the tunnel's near end in the tenant's Service and in its `EndpointSlice`s, where the tenant has a
/// tunnel. The pod's own is another one: names there are shorter.
pub const TUNNEL_PORT_NAME: &str = "konnectivity-server";

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
    /// Wanted control-plane pods; 0 sleeps, by `spec` or because it is time to (`hibernation`).
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
    /// Feature gates of all components, of the release.
    pub feature_gates: BTreeMap<String, bool>,
    /// Versions of the API to serve, of the release.
    pub runtime_config: BTreeMap<String, bool>,
    /// Issuers of service-account tokens asked for.
    pub service_account_issuers: Vec<String>,
    /// Whom the API server serves first.
    pub api_priority: Option<ApiPriority>,
    /// Size class of the components.
    pub size: Option<Size>,
    /// What is encrypted in the pool, and with what.
    pub encryption: Encryption,
    /// When the authorities are replaced; left out like an old number.
    pub certificate_authority: CertificateAuthority,
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
    /// When it sleeps.
    pub hibernation: Option<Box<Hibernation>>,
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
    #[error("spec.kubernetes.featureGates: {0}")]
    FeatureGate(#[from] RefusedGate),
    #[error("spec.kubernetes.runtimeConfig: {0}")]
    RuntimeConfig(#[from] RefusedVersion),
    #[error(
        "spec.kubernetes.serviceAccountIssuers and --service-account-issuer of extraArgs exclude each other"
    )]
    IssuersTwice,
    #[error("spec.kubernetes.encryption: {0}")]
    Encryption(&'static str),
    #[error("spec.hibernation.{0}")]
    Hibernation(#[from] InvalidHibernation),
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
        checks::issuers(&spec.kubernetes.service_account_issuers, deployment)?;
        feature_gates::check(version, &spec.kubernetes.feature_gates)?;
        runtime_config::check(version, &spec.kubernetes.runtime_config)?;
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
            feature_gates: spec.kubernetes.feature_gates.clone(),
            runtime_config: spec.kubernetes.runtime_config.clone(),
            service_account_issuers: spec.kubernetes.service_account_issuers.clone(),
            api_priority: spec.kubernetes.api_priority.clone(),
            size: spec.control_plane.size,
            encryption,
            certificate_authority: spec
                .kubernetes
                .certificate_authority
                .clone()
                .unwrap_or_default(),
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
            hibernation: spec
                .hibernation
                .as_ref()
                .map(|asked| Hibernation::validate(asked).map(Box::new))
                .transpose()?,
        })
    }
}

fn is_dns_1035_label(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}
