//! The operator's roles, from the table in `stoker_operator::rbac`.

use stoker_operator::rbac::{Rule, Scope, rules};

/// A `ClusterRole` for the cluster-wide rules and a Role for those of each namespace.
pub(super) fn roles() -> String {
    let cluster = role("ClusterRole", "", Scope::Cluster);
    let own = role("Role", "  namespace: stoker-system\n", Scope::OwnNamespace);
    let default = role("Role", "  namespace: default\n", Scope::DefaultNamespace);
    [cluster, own, default].join("---\n")
}

fn role(kind: &str, namespace: &str, scope: Scope) -> String {
    let rules: String = rules()
        .iter()
        .filter(|rule| rule.scope == scope)
        .map(policy_rule)
        .collect();
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: {kind}\n\
         metadata:\n  \
           name: stoker-operator\n\
         {namespace}  \
           labels:\n    \
             app.kubernetes.io/name: stoker-operator\n    \
             app.kubernetes.io/part-of: stoker\n\
         rules:\n\
         {rules}"
    )
}

fn policy_rule(rule: &Rule) -> String {
    let names = if rule.names.is_empty() {
        String::new()
    } else {
        format!("    resourceNames: [{}]\n", rule.names.join(", "))
    };
    format!(
        "  # {}\n  - apiGroups: [\"{}\"]\n    resources: [{}]\n{names}    verbs: [{}]\n",
        rule.why,
        rule.group,
        rule.resources.join(", "),
        rule.verbs.join(", ")
    )
}
