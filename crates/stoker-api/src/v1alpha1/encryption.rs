//! `spec.kubernetes.encryption`: what is stored encrypted, and with what.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::LABEL;

/// What is encrypted in the `DataStore`, and with what. A change rewrites what is stored.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.provider == 'kms') == has(self.kms)")
        .message("kms goes with provider kms alone, and that with kms"),
)]
pub struct Encryption {
    /// With what.
    #[serde(default)]
    pub provider: EncryptionProvider,
    /// Resources, `secrets` among them, such as `configmaps` or `deployments.apps`.
    #[serde(default = "secrets")]
    #[schemars(length(min = 1, max = 32), inner(length(max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("'secrets' in self").message("resources: secrets are always encrypted"),
        validation = Rule::new(format!("self.all(r, {ENCRYPTABLE})")).message(
            "resources are written as secrets or deployments.apps, without wildcards and versions; \
             not of the groups events.k8s.io and extensions"
        ),
    )]
    pub resources: Vec<String>,
    /// Another number makes a new key; with `kms` it rewrites what is stored.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub key_generation: i64,
    /// The KMS v2 plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<KmsPlugin>,
}

impl Default for Encryption {
    fn default() -> Self {
        Self {
            provider: EncryptionProvider::default(),
            resources: secrets(),
            key_generation: 0,
            kms: None,
        }
    }
}

fn secrets() -> Vec<String> {
    vec!["secrets".to_owned()]
}

/// CEL of a resource `r`, as `ValidateEncryptionConfiguration` of `k8s.io/apiserver` asks.
const ENCRYPTABLE: &str = "r.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') \
    && !r.endsWith('.events.k8s.io') && !r.endsWith('.extensions') && \
    !(r in ['apiserveripinfo', 'serviceipallocations', 'servicenodeportallocations'])";

/// Providers of `EncryptionConfiguration`.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are upstream's own")]
pub enum EncryptionProvider {
    #[default]
    Secretbox,
    Aescbc,
    Aesgcm,
    Kms,
}

impl EncryptionProvider {
    /// Its name in an `EncryptionConfiguration`, and in what it has encrypted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secretbox => "secretbox",
            Self::Aescbc => "aescbc",
            Self::Aesgcm => "aesgcm",
            Self::Kms => "kms",
        }
    }
}

/// A KMS v2 plugin in the pods of the control plane.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KmsPlugin {
    /// Stored with what it has encrypted: another name stands for another plugin or another key.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(format!("self.matches('{LABEL}')")).message(
        "kms.name must be a DNS-1123 label"
    ))]
    pub name: String,
    /// Its socket, in one of `additionalVolumeMounts.apiServer`.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^unix://(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')").message(
        "kms.endpoint must be a socket such as unix:///run/kms/kms.sock"
    ))]
    pub endpoint: String,
    /// For a call, in seconds. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: Option<i32>,
}

impl KmsPlugin {
    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &str {
        self.endpoint.trim_start_matches("unix://")
    }
}

/// CEL of the spec: the socket is in a volume that the API server mounts.
pub(super) const SOCKET_HAS_A_MOUNT: &str = "\
    !has(self.kubernetes.encryption) || !has(self.kubernetes.encryption.kms) || \
    (has(self.controlPlane.deployment.additionalVolumeMounts) && \
    has(self.controlPlane.deployment.additionalVolumeMounts.apiServer) && \
    self.controlPlane.deployment.additionalVolumeMounts.apiServer.exists(m, \
    self.kubernetes.encryption.kms.endpoint.startsWith('unix://' + m.mountPath + '/')))";
