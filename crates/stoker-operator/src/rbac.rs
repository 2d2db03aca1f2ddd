//! RBAC of the operator: the declared table from which `cargo xtask gen` writes the roles.
//!
//! Whatever the operator asks an API server for is listed here and nothing more. Tenants live in
//! namespaces of their own, not known beforehand, so most rules are cluster-wide; what RBAC cannot
//! narrow to our own objects (it knows no labels) the operator narrows itself.

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace, and for kinds that have none.
    Cluster,
    /// In the operator's own namespace.
    OwnNamespace,
    /// In the namespace `default`, where the management API server's own Service is.
    DefaultNamespace,
}

/// One rule of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it holds.
    pub scope: Scope,
    /// API group; empty is the core group.
    pub group: &'static str,
    /// Plural resource names, subresources as `resource/subresource`.
    pub resources: &'static [&'static str],
    /// Only objects of these names; all when empty.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What it is for, in one line.
    pub why: &'static str,
}

const fn rule(
    scope: Scope,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule {
        scope,
        group,
        resources,
        names: &[],
        verbs,
        why,
    }
}

const fn cluster(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    rule(Scope::Cluster, group, resources, verbs, why)
}

/// Server-side apply, which asks for `create` and `patch`, of objects that the operator also watches, reads again
/// and deletes itself. What has no `delete` goes with its owner.
const OWN: &[&str] = &["create", "delete", "get", "list", "patch", "watch"];

/// What only some tenants ask for: found by its label when it is no longer asked for.
const ROUTE: &[&str] = &["create", "delete", "list", "patch", "watch"];

const RULES: &[Rule] = &[
    cluster(
        "stoker.dev",
        &[
            "datastores",
            "jointokens",
            "kubeconfiggenerators",
            "tenantcontrolplanes",
        ],
        &["get", "list", "patch", "watch"],
        "reads what is asked for, afresh where a write was outrun; patches finalizers",
    ),
    cluster(
        "stoker.dev",
        &["tenantcontrolplanes"],
        &["delete"],
        "tenants of a namespace that is being deleted go first, in order",
    ),
    cluster(
        "stoker.dev",
        &[
            "datastores/status",
            "jointokens/status",
            "kubeconfiggenerators/status",
            "tenantcontrolplanes/status",
        ],
        &["patch"],
        "reports what it did",
    ),
    cluster(
        "stoker.dev",
        &["tenantcontrolplanes/finalizers"],
        &["update"],
        "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on",
    ),
    cluster(
        "",
        &["configmaps", "secrets"],
        OWN,
        "a tenant's keys and configuration; a DataStore's credentials in any namespace",
    ),
    cluster(
        "",
        &["services"],
        &["create", "get", "list", "patch", "watch"],
        "a tenant's address; a pool's address in any namespace",
    ),
    cluster("apps", &["deployments"], OWN, "a tenant's control plane"),
    cluster(
        "policy",
        &["poddisruptionbudgets"],
        OWN,
        "keeps one control-plane pod through drains",
    ),
    cluster(
        "networking.k8s.io",
        &["networkpolicies"],
        &["create", "list", "patch", "watch"],
        "what control-plane pods may reach",
    ),
    cluster(
        "networking.k8s.io",
        &["ingresses"],
        ROUTE,
        "where a tenant asks for an Ingress",
    ),
    cluster(
        "gateway.networking.k8s.io",
        &["tlsroutes"],
        ROUTE,
        "where a tenant asks for a route of the Gateway API",
    ),
    cluster(
        "",
        &["pods"],
        &["delete", "list", "patch", "watch"],
        "sees control-plane pods start and end; an annotation makes the kubelet refresh Secrets; those of a deleted tenant need not drain",
    ),
    cluster(
        "events.k8s.io",
        &["events"],
        &["create"],
        "tells people what happens",
    ),
    cluster(
        "",
        &["namespaces"],
        &["list", "watch"],
        "sees which are being deleted; labels by which a KubeconfigGenerator selects, from when one does",
    ),
    cluster(
        "",
        &["nodes"],
        &["list", "watch"],
        "networks of the management cluster, closed to control-plane pods",
    ),
    cluster(
        "networking.k8s.io",
        &["servicecidrs"],
        &["list", "watch"],
        "Service networks of the management cluster, closed to control-plane pods",
    ),
    cluster(
        "",
        &["serviceaccounts"],
        &["get"],
        "admission warns of a ServiceAccount that is not there",
    ),
    cluster(
        "node.k8s.io",
        &["runtimeclasses"],
        &["get"],
        "admission warns of a RuntimeClass that is not there",
    ),
    Rule {
        names: &[crate::admission::CONFIGURATION],
        ..cluster(
            "admissionregistration.k8s.io",
            &["validatingwebhookconfigurations"],
            &["list", "patch", "watch"],
            "has API servers trust the webhook's authority",
        )
    },
    rule(
        Scope::DefaultNamespace,
        "discovery.k8s.io",
        &["endpointslices"],
        &["list", "watch"],
        "addresses of the management API server, closed to control-plane pods",
    ),
    rule(
        Scope::OwnNamespace,
        "coordination.k8s.io",
        &["leases"],
        &["create"],
        "one replica works at a time; the name of what is created cannot be limited",
    ),
    Rule {
        names: &[crate::FIELD_MANAGER],
        ..rule(
            Scope::OwnNamespace,
            "coordination.k8s.io",
            &["leases"],
            &["get", "update"],
            "one replica works at a time",
        )
    },
];

/// The whole table, in the order of the generated roles.
#[must_use]
pub fn rules() -> &'static [Rule] {
    RULES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_by_a_wildcard() {
        for rule in rules() {
            assert!(!rule.group.contains('*'), "{rule:?}");
            assert!(
                !rule
                    .resources
                    .iter()
                    .chain(rule.verbs)
                    .any(|text| text.contains('*'))
            );
            assert!(!rule.why.is_empty() && !rule.why.contains('\n'));
        }
    }

    #[test]
    fn the_operator_cannot_raise_its_own_rights() {
        for rule in rules() {
            assert_ne!(rule.group, "rbac.authorization.k8s.io");
            let risky = ["escalate", "bind", "impersonate", "deletecollection"];
            assert!(
                !rule.verbs.iter().any(|verb| risky.contains(verb)),
                "{rule:?}"
            );
            let pods = rule.resources.contains(&"pods");
            assert!(!(pods && rule.verbs.contains(&"create")), "{rule:?}");
        }
    }
}
