//! YAML documents inside `ConfigMaps`, and kubeadm's mark on those that it made itself.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// kubeadm's annotation on component configuration that no person changed.
const HASH_ANNOTATION: &str = "kubeadm.kubernetes.io/component-config.hash";

/// `document` as block YAML with sorted keys, as kubeadm writes it.
pub(crate) fn to_yaml(document: &Value) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // JSON is YAML too: what a Value holds can always be written so.
    serde_saphyr::to_string_with_options(document, options).unwrap_or_else(|_| document.to_string())
}

/// Marks `config_map` as made by kubeadm and unchanged (`componentconfigs.SignConfigMap`): the
/// SHA-256 of its values in the order of their keys. Later kubeadms then replace the document
/// instead of refusing it when its API version is gone.
pub(crate) fn sign(mut config_map: ConfigMap) -> ConfigMap {
    let mut hash = Sha256::new();
    for value in config_map.data.iter().flat_map(|data| data.values()) {
        hash.update(value);
    }
    config_map
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(
            HASH_ANNOTATION.to_owned(),
            format!("sha256:{}", hex::encode(hash.finalize())),
        );
    config_map
}
