//! `spec.controlPlane.deployment`: the pods of the control plane.

mod arguments;
mod images;
mod metadata;
mod probes;
mod strategy;

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use arguments::ExtraArgs;
pub use images::RegistrySettings;
pub use metadata::AdditionalMetadata;
pub use probes::{ComponentProbes, ProbeTiming, Probes};
pub use strategy::{RollingUpdate, Strategy, StrategyType};

use super::core::{
    Affinity, ContainerSecurity, Containers, InitContainers, PodSecurity, Resources, Tolerations,
    TopologySpread, VolumeMounts, Volumes,
};
use super::rules::{DNS_NAME, is_default};

/// The pods of the control plane.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(mounts_name_volumes()).message(
    "volumeMounts: every mount names a volume of additionalVolumes; the control plane's own \
     volumes hold its keys"
))]
pub struct ControlPlaneDeployment {
    /// Number of control-plane pods; 0 puts the tenant to sleep with everything kept. Default: 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Where the images of the three components come from.
    #[serde(default)]
    pub registry_settings: RegistrySettings,
    /// How pods are replaced. Default: new pods are all ready before old ones go (`RollingUpdate`
    /// with `maxSurge: 100%`, `maxUnavailable: 0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that pods tolerate.
    #[serde(default, skip_serializing_if = "Tolerations::is_empty")]
    pub tolerations: Tolerations,
    /// Replaces the default: a preference for nodes without another pod of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Replaces the default: a preference for zones with fewer pods of the tenant. Without
    /// `labelSelector` a constraint counts the tenant's own pods.
    #[serde(default, skip_serializing_if = "TopologySpread::is_empty")]
    pub topology_spread_constraints: TopologySpread,
    /// Runtime class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_NAME}')")).message(
        "runtimeClassName must be the name of a RuntimeClass"
    ))]
    pub runtime_class_name: Option<String>,
    /// Requests and limits per component. What is left out keeps Stoker's request, and has no
    /// limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: ComponentResources,
    /// Arguments to add per component.
    #[serde(default, skip_serializing_if = "is_default")]
    pub extra_args: ExtraArgs,
    /// Labels and annotations of the Deployment.
    #[serde(default, skip_serializing_if = "is_default")]
    pub additional_metadata: AdditionalMetadata,
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod_additional_metadata: AdditionalMetadata,
    /// Containers that run before the others, or beside them with `restartPolicy: Always`.
    #[serde(default, skip_serializing_if = "InitContainers::is_empty")]
    pub additional_init_containers: InitContainers,
    /// Containers that run beside the three components.
    #[serde(default, skip_serializing_if = "Containers::is_empty")]
    pub additional_containers: Containers,
    /// Volumes for `additionalVolumeMounts` and additional containers.
    #[serde(default, skip_serializing_if = "Volumes::is_empty")]
    pub additional_volumes: Volumes,
    /// Mounts of `additionalVolumes` in the three components.
    #[serde(default, skip_serializing_if = "is_default")]
    pub additional_volume_mounts: ComponentVolumeMounts,
    /// Timing of the probes: for all components, and per component.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probes: Probes,
    /// Service account of the pods, for its image pull secrets and admission; they never hold its
    /// token. Default: the namespace's `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(format!("self.matches('{DNS_NAME}')")).message(
        "serviceAccountName must be the name of a ServiceAccount"
    ))]
    pub service_account_name: Option<String>,
    /// `false`, as when left out: control-plane pods hold no credential of the management cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self").message(
        "automountServiceAccountToken cannot be true: control-plane pods hold no credential of \
         the management cluster"
    ))]
    pub automount_service_account_token: Option<bool>,
    /// Security settings per component, within the restricted profile.
    #[serde(default, skip_serializing_if = "is_default")]
    pub container_security_contexts: ComponentSecurity,
    /// Security settings of the pods, within the restricted profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurity>,
}

/// Requests and limits per component.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentResources {
    /// kube-apiserver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<Resources>,
    /// kube-controller-manager's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<Resources>,
    /// kube-scheduler's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Resources>,
}

/// Mounts per component.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentVolumeMounts {
    /// kube-apiserver's.
    #[serde(default, skip_serializing_if = "VolumeMounts::is_empty")]
    pub api_server: VolumeMounts,
    /// kube-controller-manager's.
    #[serde(default, skip_serializing_if = "VolumeMounts::is_empty")]
    pub controller_manager: VolumeMounts,
    /// kube-scheduler's.
    #[serde(default, skip_serializing_if = "VolumeMounts::is_empty")]
    pub scheduler: VolumeMounts,
}

/// Security settings per component.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSecurity {
    /// kube-apiserver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ContainerSecurity>,
    /// kube-controller-manager's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ContainerSecurity>,
    /// kube-scheduler's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<ContainerSecurity>,
}

/// CEL: every mount, in our containers and in others, names an additional volume.
fn mounts_name_volumes() -> String {
    let names = "(has(self.additionalVolumes) ? self.additionalVolumes.map(v, v.name) : [])";
    let ours = ["apiServer", "controllerManager", "scheduler"].map(|component| {
        let list = format!("self.additionalVolumeMounts.{component}");
        format!("(!has({list}) || {list}.all(m, m.name in {names}))")
    });
    let others = ["additionalContainers", "additionalInitContainers"].map(|list| {
        format!(
            "(!has(self.{list}) || self.{list}.all(c, !has(c.volumeMounts) || \
             c.volumeMounts.all(m, m.name in {names})))"
        )
    });
    format!(
        "(!has(self.additionalVolumeMounts) || ({})) && {}",
        ours.join(" && "),
        others.join(" && ")
    )
}

fn default_replicas() -> i32 {
    2
}

impl Default for ControlPlaneDeployment {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            registry_settings: RegistrySettings::default(),
            strategy: None,
            node_selector: BTreeMap::new(),
            tolerations: Tolerations::default(),
            affinity: None,
            topology_spread_constraints: TopologySpread::default(),
            runtime_class_name: None,
            resources: ComponentResources::default(),
            extra_args: ExtraArgs::default(),
            additional_metadata: AdditionalMetadata::default(),
            pod_additional_metadata: AdditionalMetadata::default(),
            additional_init_containers: InitContainers::default(),
            additional_containers: Containers::default(),
            additional_volumes: Volumes::default(),
            additional_volume_mounts: ComponentVolumeMounts::default(),
            probes: Probes::default(),
            service_account_name: None,
            automount_service_account_token: None,
            container_security_contexts: ComponentSecurity::default(),
            pod_security_context: None,
        }
    }
}
