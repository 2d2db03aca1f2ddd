//! `stoker.dev/v1alpha1`.

#![expect(
    unreachable_pub,
    reason = "kube's KubeSchema derive copies each struct, `pub` and all, into a function body"
)]

mod addons;
mod api_priority;
mod audit;
mod authentication;
mod certificate_authority;
mod control_plane;
mod core;
mod data_store;
mod deployment;
mod encryption;
mod hibernation;
mod join_token;
mod kubeconfig_generator;
mod kubernetes;
mod network;
mod routes;
mod rules;
mod selector;
mod service;
mod status;
mod tenant_control_plane;

pub use addons::{
    Addon, Addons, AgentMode, DEFAULT_TUNNEL_PORT, Konnectivity, KonnectivityAgent,
    KonnectivityServer, KubeProxyAddon, NodeListener,
};
pub use api_priority::{ApiPriority, PriorityPreset};
pub use audit::{
    Audit, AuditLevel, AuditLog, AuditPolicy, AuditResources, AuditRule, AuditStage, AuditWebhook,
};
pub use authentication::{
    AudienceMatchPolicy, Authentication, Claim, ClaimMappings, ClaimValidationRule, ExtraMapping,
    Issuer, JwtAuthenticator, PrefixedClaim, UserValidationRule,
};
pub use certificate_authority::CertificateAuthority;
pub use control_plane::{ControlPlane, Size};
pub use core::{
    Affinity, ContainerSecurity, Containers, InitContainers, PodSecurity, Resources, Tolerations,
    TopologySpread, VolumeMounts, Volumes,
};
pub use data_store::{
    Content, ContentReference, DataStore, DataStoreSpec, DataStoreStatus, Driver, KeyPair,
    OptionalKeyPair, TlsConfig,
};
pub use deployment::{
    AdditionalMetadata, ComponentProbes, ComponentResources, ComponentSecurity,
    ComponentVolumeMounts, ControlPlaneDeployment, ExtraArgs, ProbeTiming, Probes,
    RegistrySettings, RollingUpdate, Strategy, StrategyType,
};
pub use encryption::{Encryption, EncryptionProvider, KmsPlugin};
pub use hibernation::{
    Hibernation, HibernationReason, HibernationSchedule, HibernationState, HibernationStatus,
};
pub use join_token::{
    JoinToken, JoinTokenSpec, JoinTokenStatus, JoinedDevices, JoinedNode, NodeTaint, TaintEffect,
};
pub use kubeconfig_generator::{
    CompoundValue, KubeconfigGenerator, KubeconfigGeneratorError, KubeconfigGeneratorSpec,
    KubeconfigGeneratorStatus, MASTERS, RESERVED_NAMES,
};
pub use kubernetes::{
    Cgroupfs, JsonPatch, JsonPatchOperation, Kubelet, Kubernetes, NodeAddressType,
};
pub use network::NetworkProfile;
pub(crate) use network::{DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR};
pub use routes::{
    AccessPoint, ControlPlaneGateway, ControlPlaneIngress, GatewayStatus, IngressLoadBalancer,
    IngressPoint, IngressStatus, ParentReference, RouteParent, RouteReference,
};
pub use selector::{Operator, Requirement, Selector};
pub use service::{
    AdditionalPort, ControlPlaneService, IpFamily, IpFamilyPolicy, Protocol, ServiceType,
};
pub use status::{
    AddonStatus, AddonsStatus, CertificatesStatus, ConfigMapStatus, DeploymentStatus,
    KubeconfigsStatus, KubernetesResourcesStatus, SecretStatus, ServiceStatus, StorageSetupStatus,
    StorageStatus, TenantControlPlaneStatus, VersionState, VersionStatus,
};
pub use tenant_control_plane::{
    Deletion, TenantControlPlane, TenantControlPlaneSpec, WritePermissions,
};

/// The API group of the control-plane kinds.
pub const GROUP: &str = "stoker.dev";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";
