//! `spec.addons`: software that the operator installs inside the tenant cluster.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::JsonPatch;
use super::rules::{REPOSITORY, TAG};

/// Software that the operator installs inside the tenant cluster. What is left out is not
/// installed, and removed when it was.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Addons {
    /// Cluster DNS.
    #[serde(default, rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<Addon>,
    /// The Service proxy on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<KubeProxyAddon>,
}

/// Where an add-on's image comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    /// Repository of the image, without the image's own name. Default: kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{REPOSITORY}')")).message(
        "imageRepository must be a repository such as registry.example.com/mirror, without scheme"
    ))]
    pub image_repository: Option<String>,
    /// Tag of the image. Default: kubeadm's for the Kubernetes version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{TAG}')")).message(
        "imageTag must be a tag: letters, digits and ._-"
    ))]
    pub image_tag: Option<String>,
}

/// kube-proxy on every node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxyAddon {
    /// Where the image comes from.
    #[serde(flatten)]
    pub image: Addon,
    /// RFC 6902 patches applied to the `KubeProxyConfiguration` before it is published.
    #[serde(
        default,
        rename = "configurationJSONPatches",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 64))]
    pub configuration_json_patches: Vec<JsonPatch>,
}
