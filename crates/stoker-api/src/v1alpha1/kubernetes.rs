//! `spec.kubernetes`: the release and the kubelets' settings.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::{Message, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::authentication::{HTTPS, HTTPS_MESSAGE};
use super::rules::is_default;
use super::{ApiPriority, Audit, Authentication, CertificateAuthority, Encryption};
use crate::{admission_plugins, runtime_config, version};

/// The Kubernetes release of the control plane and the settings of its kubelets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = plugins_exist(),
    validation = Rule::new(FORMER_ISSUER_STAYS).message(
        "serviceAccountIssuers: the issuer that signs until now must stay, behind the new one, until \
         a later change: its tokens would be refused, those of running pods too"
    ),
    validation = Rule::new(NO_ISSUER_OF_ITS_OWN).message(
        "authentication.jwt: an issuer of serviceAccountIssuers issues this cluster's own tokens"
    )
)]
pub struct Kubernetes {
    /// Release of the control plane, `vMAJOR.MINOR.PATCH`; minors 1.33 to 1.36. Its minor goes up
    /// one at a time and never down; patches are free.
    #[schemars(length(max = 12))]
    #[x_kube(
        validation = Rule::new(version::is_release())
            .message("version must be a release such as v1.36.3"),
        validation = Rule::new(version::is_supported())
            .message(format!("version is not supported: use {}", version::supported()).as_str()),
        validation = Rule::new(version::no_downgrade()).message(
            "version: a control plane's minor cannot go down, its state may already be of the \
             newer one; restore a backup into a new tenant instead"
        ),
        validation = Rule::new(version::no_skip())
            .message(
            "version: upgrade one minor at a time: kube-apiserver's stored state and the kubelets \
             around it are only sure to work with the neighbouring minors"
        )
    )]
    pub version: String,
    /// Settings of the kubelets that join.
    #[serde(default)]
    pub kubelet: Kubelet,
    /// Admission plugins to enable beside those that the release enables by itself and
    /// `NodeRestriction`, which is always on (`kube-apiserver --enable-admission-plugins`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub admission_controllers: Vec<String>,
    /// Who is let in beside certificates and the cluster's own tokens.
    #[serde(default, skip_serializing_if = "is_default")]
    pub authentication: Authentication,
    /// Which requests the API servers record, and where; left out as if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Feature gates, of all components and kubelets alike; alpha and beta ones of the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub feature_gates: BTreeMap<String, bool>,
    /// Alpha and beta versions of the API to serve (`kube-apiserver --runtime-config`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(
        validation = Rule::new(runtime_config::form().0).message(runtime_config::form().1),
        validation = Rule::new(runtime_config::keeps_stable().0)
            .message(runtime_config::keeps_stable().1)
    )]
    pub runtime_config: BTreeMap<String, bool>,
    /// Issuers of service-account tokens: the first signs, all are believed, and behind them
    /// those that Stoker gives a tenant (`kube-apiserver --service-account-issuer`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    #[x_kube(validation = Rule::new(format!("self.all(i, i.matches(r'{HTTPS}'))")).message(HTTPS_MESSAGE))]
    pub service_account_issuers: Vec<String>,
    /// Whom the API server serves first. Left out, as upstream has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_priority: Option<ApiPriority>,
    /// What is encrypted in the `DataStore`. Left out, Secrets with secretbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// When the authorities are replaced. Left out, the present ones stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<CertificateAuthority>,
}

/// CEL: no token that lives is refused after an update. Stoker's own issuers are always believed.
const FORMER_ISSUER_STAYS: &str = "\
    !has(oldSelf.serviceAccountIssuers) || size(oldSelf.serviceAccountIssuers) == 0 || \
    (has(self.serviceAccountIssuers) && \
    oldSelf.serviceAccountIssuers[0] in self.serviceAccountIssuers) || \
    oldSelf.serviceAccountIssuers[0].startsWith('https://kubernetes.default.svc.')";

/// CEL: kube-apiserver refuses an issuer that is both.
const NO_ISSUER_OF_ITS_OWN: &str = "\
    !has(self.serviceAccountIssuers) || !has(self.authentication) || \
    !has(self.authentication.jwt) || \
    self.authentication.jwt.all(j, !(j.issuer.url in self.serviceAccountIssuers))";

fn plugins_exist() -> Rule {
    let (rule, message) = admission_plugins::exist();
    Rule::new(rule).message(Message::Expression(message))
}

/// Settings of the kubelets that join.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Kubelet {
    /// RFC 6902 patches applied to the `kubelet-config` of the tenant before it is published.
    #[serde(
        default,
        rename = "configurationJSONPatches",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 64))]
    pub configuration_json_patches: Vec<JsonPatch>,
    /// Order in which the API server tries a node's addresses
    /// (`kube-apiserver --kubelet-preferred-address-types`).
    /// Default: `InternalIP`, `ExternalIP`, `Hostname`.
    #[serde(default = "default_preferred_address_types")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub preferred_address_types: Vec<NodeAddressType>,
    /// cgroup driver of the kubelets (`KubeletConfiguration.cgroupDriver`); left out, kubelets
    /// decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<Cgroupfs>,
}

/// Where kubelets are told to ask for serving certificates of the cluster's authority.
const SERVING: &str = "serverTLSBootstrap";

impl Kubelet {
    /// What the patches say of `serverTLSBootstrap`, the last one of several: whether kubelets ask for serving
    /// certificates of the tenant's authority. `None` when they say nothing.
    #[must_use]
    pub fn serving_certificates(&self) -> Option<bool> {
        use JsonPatchOperation::{Add, Remove, Replace};
        let says = |patch: &JsonPatch| {
            let value = patch.value.as_ref();
            let here = patch.path.strip_prefix('/') == Some(SERVING);
            match patch.op {
                Remove if here => Some(false),
                Add | Replace if here => Some(value == Some(&serde_json::Value::Bool(true))),
                // The whole document.
                Add | Replace if patch.path.is_empty() => {
                    let whole = value.and_then(|value| value[SERVING].as_bool());
                    Some(whole == Some(true))
                }
                _ => None,
            }
        };
        self.configuration_json_patches.iter().rev().find_map(says)
    }
}

fn default_preferred_address_types() -> Vec<NodeAddressType> {
    vec![
        NodeAddressType::InternalIP,
        NodeAddressType::ExternalIP,
        NodeAddressType::Hostname,
    ]
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            configuration_json_patches: Vec::new(),
            preferred_address_types: default_preferred_address_types(),
            cgroupfs: None,
        }
    }
}

/// One RFC 6902 operation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("!(self.op in ['move', 'copy']) || has(self.from)")
        .message("op move and op copy need from: the place to take the value from")
)]
#[schemars(extend("anyOf" = [
    { "required": ["value"] },
    { "not": { "properties": { "op": { "enum": ["add", "replace", "test"] } } } },
]))]
pub struct JsonPatch {
    /// What to do.
    pub op: JsonPatchOperation,
    /// JSON pointer (RFC 6901) of the place to change.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new(IS_POINTER).message(POINTER_MESSAGE))]
    pub path: String,
    /// JSON pointer of the source, for `move` and `copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new(IS_POINTER).message(POINTER_MESSAGE))]
    pub from: Option<String>,
    /// The value, required for `add`, `replace` and `test`: any JSON, `null` too.
    #[serde(
        default,
        deserialize_with = "any_value",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "any_json")]
    pub value: Option<serde_json::Value>,
}

const IS_POINTER: &str = "self == '' || self.startsWith('/')";
const POINTER_MESSAGE: &str =
    "a JSON pointer is empty (the whole document) or starts with /, such as /maxPods";

/// Keeps an explicit `null` apart from no value at all.
fn any_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

fn any_json(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true, "nullable": true })
}

/// The operations of RFC 6902.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the operations are RFC 6902's own")]
pub enum JsonPatchOperation {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

/// Kinds of node addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are core/v1 NodeAddressType's own")]
pub enum NodeAddressType {
    Hostname,
    InternalIP,
    ExternalIP,
    InternalDNS,
    ExternalDNS,
}

/// cgroup drivers of a kubelet.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub enum Cgroupfs {
    Systemd,
    Cgroupfs,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(patches: &serde_json::Value) -> Option<bool> {
        let kubelet = json!({ "configurationJSONPatches": patches });
        let kubelet: Kubelet = serde_json::from_value(kubelet).unwrap();
        kubelet.serving_certificates()
    }

    #[test]
    fn the_last_patch_of_the_field_says_whether_kubelets_ask_for_serving_certificates() {
        let path = "/serverTLSBootstrap";
        let off = json!({ "op": "replace", "path": path, "value": false });
        let on = json!({ "op": "add", "path": path, "value": true });
        let gone = json!({ "op": "remove", "path": path });
        let other = json!({ "op": "add", "path": "/maxPods", "value": 7 });
        assert_eq!(says(&json!([])), None);
        assert_eq!(says(&json!([other])), None);
        assert_eq!(says(&json!([off])), Some(false));
        assert_eq!(says(&json!([off, on, other])), Some(true));
        assert_eq!(says(&json!([on, gone])), Some(false));
        let whole = json!({ "op": "replace", "path": "", "value": { "maxPods": 7 } });
        assert_eq!(says(&json!([on, whole])), Some(false));
    }
}
