//! The Secret that holds what to type on a machine. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use stoker_api::labels::{COMPONENT, JOIN_TOKEN, MANAGED_BY, MANAGED_BY_VALUE, PART_OF, PROJECT};
use stoker_api::v1alpha1::JoinToken;
use stoker_pki::{BootstrapToken, JoinCredential};

/// The string for `stoker-node join`, and nothing else: the one from which the token is read back.
pub const TOKEN: &str = "token";
/// The command line of `stoker-node`.
const JOIN: &str = "join";
/// The command line of `kubeadm`.
const KUBEADM: &str = "kubeadm";

/// Name of the Secret of the token `name`.
#[must_use]
pub fn secret_name(name: &str) -> String {
    format!("{name}-join-token")
}

/// The token that `found` holds, if it is one that was made for `token`.
#[must_use]
pub fn held(token: &JoinToken, found: &Secret) -> Option<BootstrapToken> {
    if !is_ours(token, found) {
        return None;
    }
    let text = &found.data.as_ref()?.get(TOKEN)?.0;
    let credential = JoinCredential::parse(std::str::from_utf8(text).ok()?).ok()?;
    Some(credential.token)
}

/// Whether a Secret was made for `token`, and not for one of its name that was there before.
#[must_use]
pub fn is_ours(token: &JoinToken, found: &Secret) -> bool {
    let uid = token.uid();
    let owners = found.owner_references().iter();
    uid.is_some()
        && owners
            .map(|owner| &owner.uid)
            .any(|owner| Some(owner) == uid.as_ref())
}

/// The Secret.
///
/// # Errors
/// The string cannot be written.
pub fn secret(token: &JoinToken, credential: &JoinCredential) -> Result<Secret, stoker_pki::Error> {
    let text = credential.encode()?;
    let hashes = credential.ca_hashes.iter();
    let hashes: Vec<String> = hashes
        .map(|hash| format!("--discovery-token-ca-cert-hash {hash}"))
        .collect();
    let entries = [
        (JOIN, format!("stoker-node join {text}")),
        (
            KUBEADM,
            format!(
                "kubeadm join {} --token {} {}",
                credential.server,
                credential.token.text(),
                hashes.join(" ")
            ),
        ),
        (TOKEN, text),
    ];
    let name = token.name_any();
    let labels = [
        (MANAGED_BY, MANAGED_BY_VALUE),
        (PROJECT, MANAGED_BY_VALUE),
        (PART_OF, MANAGED_BY_VALUE),
        (COMPONENT, "join-token"),
        (JOIN_TOKEN, &name),
    ];
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&name)),
            namespace: token.namespace(),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            owner_references: Some(vec![owner(token)]),
            ..ObjectMeta::default()
        },
        data: Some(
            entries
                .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    })
}

fn owner(token: &JoinToken) -> OwnerReference {
    OwnerReference {
        api_version: JoinToken::api_version(&()).into_owned(),
        kind: JoinToken::kind(&()).into_owned(),
        name: token.name_any(),
        uid: token.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}
