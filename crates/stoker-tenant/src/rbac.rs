//! Short forms of RBAC objects.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use crate::object_meta::{KUBE_SYSTEM, cluster_wide, namespaced};

/// Group of every bootstrap token that kubeadm makes (`kubeadm token create --groups`).
pub(crate) const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Group of every node's client certificate.
pub(crate) const NODES: &str = "system:nodes";

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn group(name: &str) -> Subject {
    rbac_subject("Group", name)
}

pub(crate) fn user(name: &str) -> Subject {
    rbac_subject("User", name)
}

/// A `ServiceAccount` of `kube-system`.
pub(crate) fn service_account(name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(KUBE_SYSTEM.to_owned()),
        ..Subject::default()
    }
}

fn rbac_subject(kind: &str, name: &str) -> Subject {
    Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..Subject::default()
    }
}

/// `verbs` on `resources` of the API group `group`.
pub(crate) fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// A Role to read one `ConfigMap`, and its binding of the same name.
pub(crate) fn config_map_reader(
    component: &str,
    namespace: &str,
    role: &str,
    config_map: &str,
    subjects: Vec<Subject>,
) -> (Role, RoleBinding) {
    let metadata = namespaced(component, namespace, role);
    let get = PolicyRule {
        resource_names: Some(vec![config_map.to_owned()]),
        ..rule("", &["configmaps"], &["get"])
    };
    (
        Role {
            metadata: metadata.clone(),
            rules: Some(vec![get]),
        },
        RoleBinding {
            metadata,
            role_ref: role_ref("Role", role),
            subjects: Some(subjects),
        },
    )
}

/// A binding, without a name, of `subject` to a Role of its namespace.
pub(crate) fn role_binding_to(role: &str, subject: Subject) -> RoleBinding {
    RoleBinding {
        role_ref: role_ref("Role", role),
        subjects: Some(vec![subject]),
        ..RoleBinding::default()
    }
}

pub(crate) fn cluster_role(component: &str, name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole {
        metadata: cluster_wide(component, name),
        rules: Some(rules),
        ..ClusterRole::default()
    }
}

pub(crate) fn cluster_role_binding(
    component: &str,
    name: &str,
    cluster_role: &str,
    subject: Subject,
) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: cluster_wide(component, name),
        role_ref: role_ref("ClusterRole", cluster_role),
        subjects: Some(vec![subject]),
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: GROUP.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
