//! Where images come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::rules::{REPOSITORY, TAG};

/// Images are `registry/name:version` with `tagSuffix` behind the version.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(format!(
        "[self.apiServerImage, self.controllerManagerImage, self.schedulerImage]\
         .all(name, name.matches('{NAME}'))"
    )).message("registrySettings: an image's name is lower-case letters, digits and /._-"),
    validation = Rule::new(format!("self.registry.matches('{REPOSITORY}')")).message(
        "registrySettings.registry must be a registry such as registry.example.com:5000/mirror, \
         without scheme"
    ),
    validation = Rule::new(format!("self.tagSuffix == '' || ('v' + self.tagSuffix).matches('{TAG}')"))
        .message("registrySettings.tagSuffix: only letters, digits and ._- may follow a tag")
)]
pub struct RegistrySettings {
    /// Registry, and path in it, of all three images.
    #[serde(default = "default_registry")]
    #[schemars(length(max = 255))]
    pub registry: String,
    /// What follows the version in the tags.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub tag_suffix: String,
    /// Name of kube-apiserver's image.
    #[serde(default = "default_api_server")]
    #[schemars(length(max = 255))]
    pub api_server_image: String,
    /// Name of kube-controller-manager's image.
    #[serde(default = "default_controller_manager")]
    #[schemars(length(max = 255))]
    pub controller_manager_image: String,
    /// Name of kube-scheduler's image.
    #[serde(default = "default_scheduler")]
    #[schemars(length(max = 255))]
    pub scheduler_image: String,
}

/// Path of an image in its registry.
const NAME: &str = "^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$";

fn default_registry() -> String {
    "registry.k8s.io".to_owned()
}

fn default_api_server() -> String {
    "kube-apiserver".to_owned()
}

fn default_controller_manager() -> String {
    "kube-controller-manager".to_owned()
}

fn default_scheduler() -> String {
    "kube-scheduler".to_owned()
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            registry: default_registry(),
            tag_suffix: String::new(),
            api_server_image: default_api_server(),
            controller_manager_image: default_controller_manager(),
            scheduler_image: default_scheduler(),
        }
    }
}
