//! What a `JoinToken` puts into the tenant: the bootstrap token, and what whoever asks with it may do.
//!
//! Applied when a token is, not with the rest: most tenants have none. So these objects lack the label by which the rest
//! is watched and what is left over of it is removed.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use stoker_api::labels::{COMPONENT, JOINERS, MANAGED_BY_VALUE, PROJECT};

use crate::object_meta::{KUBE_SYSTEM, string_map};
use crate::{component, rbac};

/// A bootstrap token and its end.
#[derive(Clone, Copy, Debug)]
pub struct JoinSecret<'a> {
    /// The public half.
    pub id: &'a str,
    /// The other half.
    pub secret: &'a str,
    /// When it ends.
    pub expiration: Timestamp,
    /// Who made it, for people.
    pub description: &'a str,
}

/// Name of the Secret of the token `id`, in `kube-system`.
#[must_use]
pub fn join_secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The Secret that makes API servers know a token. Its group is not the one for which kube-controller-manager approves.
#[must_use]
pub fn join_secret(token: &JoinSecret<'_>) -> Secret {
    let end = Timestamp::from_second(token.expiration.as_second()).unwrap_or(token.expiration);
    let data = [
        ("token-id", token.id.to_owned()),
        ("token-secret", token.secret.to_owned()),
        // Go's RFC 3339, without a fraction as kubeadm writes it.
        ("expiration", format!("{end:.0}")),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
        ("auth-extra-groups", JOINERS.to_owned()),
        ("description", token.description.to_owned()),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Secret {
        metadata: metadata(Some(KUBE_SYSTEM), &join_secret_name(token.id)),
        type_: Some("bootstrap.kubernetes.io/token".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    }
}

/// What whoever asks with a token may do: what `kubeadm join` does, but for the approval of its request.
#[must_use]
pub fn join_rights() -> (Vec<RoleBinding>, Vec<ClusterRoleBinding>) {
    let roles = ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config"];
    let role_bindings = roles.map(|role| {
        let name = format!("stoker:join-token:{role}");
        RoleBinding {
            metadata: metadata(Some(KUBE_SYSTEM), &name),
            ..rbac::role_binding_to(role, rbac::group(JOINERS))
        }
    });
    let roles = ["system:node-bootstrapper", "kubeadm:get-nodes"];
    let cluster_role_bindings = roles.map(|role| {
        let name = format!("stoker:join-token:{role}");
        ClusterRoleBinding {
            metadata: metadata(None, &name),
            ..rbac::cluster_role_binding(component::JOIN_TOKEN, &name, role, rbac::group(JOINERS))
        }
    });
    (role_bindings.into(), cluster_role_bindings.into())
}

fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(string_map(&[
            (PROJECT, MANAGED_BY_VALUE),
            (COMPONENT, component::JOIN_TOKEN),
        ])),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_as_api_servers_read_it_and_not_in_kubeadms_group() {
        let secret = join_secret(&JoinSecret {
            id: "abcdef",
            secret: "0123456789abcdef",
            expiration: "2026-01-01T00:00:00.9Z".parse().unwrap(),
            description: "JoinToken a/b",
        });
        assert_eq!(
            secret.metadata.name.as_deref(),
            Some("bootstrap-token-abcdef")
        );
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        assert_eq!(text("expiration"), "2026-01-01T00:00:00Z");
        let group = text("auth-extra-groups");
        assert_ne!(group, rbac::BOOTSTRAPPERS);
        // `k8s.io/cluster-bootstrap/token/api`, BootstrapGroupPattern.
        let rest = group.strip_prefix("system:bootstrappers:").unwrap();
        assert!(
            rest.bytes()
                .all(|b| b.is_ascii_lowercase() || b":-".contains(&b))
        );
    }

    #[test]
    fn nothing_here_is_bound_to_what_approves() {
        let (_, bindings) = join_rights();
        for binding in bindings {
            assert!(!binding.role_ref.name.contains("certificatesigningrequests"));
            assert_eq!(binding.subjects.unwrap()[0].name, JOINERS);
        }
    }
}
