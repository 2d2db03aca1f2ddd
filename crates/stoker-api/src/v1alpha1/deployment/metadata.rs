//! Labels and annotations that people add to objects.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::rules::{LABEL_VALUE, QUALIFIED_NAME};

/// Labels and annotations to add to an object.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct AdditionalMetadata {
    /// Labels to add. Stoker's own labels win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = { "type": "string", "maxLength": 63 }
    ))]
    #[x_kube(
        validation = Rule::new(format!("self.all(k, size(k) <= 317 && k.matches('{QUALIFIED_NAME}'))"))
            .message("labels: a name is letters, digits and -_. with an optional DNS prefix and /"),
        validation = Rule::new(format!("self.all(k, self[k].matches('{LABEL_VALUE}'))")).message(
            "labels: a value is at most 63 letters, digits and -_. that starts and ends with a \
             letter or digit"
        )
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add. Stoker's own annotations win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(
        validation = Rule::new(format!("self.all(k, size(k) <= 317 && k.matches('(?i){QUALIFIED_NAME}'))"))
            .message("annotations: a name is letters, digits and -_. with an optional DNS prefix and /"),
        validation = Rule::new(
            "!self.exists(k, k.startsWith('container.apparmor.security.beta.kubernetes.io/'))"
        ).message(
            "annotations: AppArmor profiles are set in security contexts, within the restricted \
             profile"
        )
    )]
    pub annotations: BTreeMap<String, String>,
}
