//! Who decides about a request to the tenant's API server, and in which order: the guard, then the
//! Node authorizer, then RBAC.
//!
//! The guard is a webhook in the same pod (`stoker-warden`), which refuses whatever it is asked. What it
//! is asked stands here, in CEL: the API server evaluates it itself, so that reads, and writes into a
//! tenant that is not frozen, never leave it; and what must go on does so while the guard is away,
//! while what must be refused is refused (`failurePolicy: Deny`). The API server reloads the file when
//! it changes, with new webhooks, so no answer outlives its reason in a cache.
//!
//! `system:masters` is asked about by nobody: the API server puts an authorizer that always agrees
//! before all of these (`k8s.io/kubernetes/pkg/kubeapiserver/authorizer/reload.go`). That lets the
//! operator in, and is why nobody may impersonate that group.

use serde::Serialize;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::WritePermissions;

use crate::deployment::{CONFIG_DIRECTORY, GUARD_PORT};
use crate::entry;

/// Users with rights, or a trust of ours, that a tenant's administrators do not have anyway.
const PLATFORM_USERS: [&str; 5] = [
    "kube-apiserver-kubelet-client",
    "stoker-operator",
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
];

/// Users of the control plane itself, and who has not said a name: probes, discovery.
const NOT_PEOPLE: [&str; 7] = [
    "kube-apiserver-kubelet-client",
    "stoker-operator",
    "system:anonymous",
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "system:kube-scheduler",
];

/// Groups that no authorizer is asked about.
const PLATFORM_GROUPS: [&str; 1] = ["system:masters"];

/// A question that the guard has not answered within this is refused.
const TIMEOUT: &str = "3s";

/// `AuthorizationConfiguration` (`apiserver.config.k8s.io/v1`, which 1.32 and newer read) as YAML.
pub(crate) fn authorization(tenant: &Tenant) -> String {
    let blocked = tenant.write_permissions;
    let mut authorizers = Vec::new();
    authorizers.extend(sleeps_when_idle(tenant).then(activity));
    authorizers.push(guard(
        "platform-identities.stoker.dev",
        impersonates_the_platform(),
    ));
    authorizers.extend(writes(blocked).map(|writes| guard("write-freeze.stoker.dev", writes)));
    authorizers.extend(
        [("Node", "node"), ("RBAC", "rbac")].map(|(kind, name)| Authorizer {
            kind,
            name,
            webhook: None,
        }),
    );
    let configuration = Configuration {
        api_version: "apiserver.config.k8s.io/v1",
        kind: "AuthorizationConfiguration",
        authorizers,
    };
    // Strings in structs always serialize.
    serde_saphyr::to_string(&configuration).unwrap_or_default()
}

/// Whether the API server tells the warden who asks.
pub(crate) fn sleeps_when_idle(tenant: &Tenant) -> bool {
    let hibernation = tenant.hibernation.as_deref();
    hibernation.is_some_and(|hibernation| hibernation.idle_after.is_some())
}

/// Where the API server asks the guard.
pub(crate) fn guard_kubeconfig() -> String {
    kubeconfig("")
}

/// Where it tells who asks.
pub(crate) fn activity_kubeconfig() -> String {
    kubeconfig("activity")
}

/// On loopback, where only this pod is.
fn kubeconfig(path: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: guard
  cluster:
    server: http://127.0.0.1:{GUARD_PORT}/{path}
users:
- name: kube-apiserver
  user: {{}}
contexts:
- name: guard
  context:
    cluster: guard
    user: kube-apiserver
current-context: guard
"
    )
}

/// `impersonate`, and `impersonate:user-info` and the like of constrained impersonation (1.35).
fn impersonates_the_platform() -> Vec<String> {
    vec![
        "has(request.resourceAttributes) && request.resourceAttributes.verb.startsWith('impersonate')"
            .to_owned(),
        format!(
            "(request.resourceAttributes.resource == 'users' && request.resourceAttributes.name in {}) || \
             (request.resourceAttributes.resource == 'groups' && request.resourceAttributes.name in {})",
            list(&PLATFORM_USERS),
            list(&PLATFORM_GROUPS),
        ),
    ]
}

/// Asked first, and without an opinion: by whom the tenant is used. The same question is not asked again for half a minute.
/// People are whoever is left: not nodes, not the control plane, and not pods, which would keep awake what runs on without
/// its control plane. Tokens of service accounts that were made for people and machines elsewhere are bound to no pod.
fn activity() -> Authorizer {
    let conditions = vec![
        "!('system:nodes' in request.groups)".to_owned(),
        format!("!(request.user in {})", list(&NOT_PEOPLE)),
        "!('authentication.kubernetes.io/pod-name' in request.extra)".to_owned(),
        "!('system:serviceaccounts:kube-system' in request.groups)".to_owned(),
    ];
    webhook(
        "activity.stoker.dev",
        entry::ACTIVITY,
        "NoOpinion",
        conditions,
    )
}

/// The writes that are frozen; `None` when none is. All conditions must hold, and the first that does
/// not ends the evaluation.
fn writes(blocked: WritePermissions) -> Option<Vec<String>> {
    // To create a subresource is to change or to delete what it belongs to.
    let create =
        "request.resourceAttributes.verb == 'create' && request.resourceAttributes.subresource";
    let kinds = [
        (
            blocked.block_creation,
            vec!["create"],
            format!("({create} == '')"),
        ),
        (
            blocked.block_update,
            vec!["update", "patch", "create"],
            format!(
                "request.resourceAttributes.verb in ['update', 'patch'] || \
                 ({create} != '' && request.resourceAttributes.subresource != 'eviction')"
            ),
        ),
        (
            blocked.block_deletion,
            vec!["delete", "deletecollection", "create"],
            format!(
                "request.resourceAttributes.verb in ['delete', 'deletecollection'] || \
                 ({create} == 'eviction')"
            ),
        ),
    ];
    let frozen: Vec<_> = kinds.into_iter().filter(|(blocked, ..)| *blocked).collect();
    if frozen.is_empty() {
        return None;
    }
    let mut verbs: Vec<_> = frozen
        .iter()
        .flat_map(|(_, verbs, _)| verbs.clone())
        .collect();
    verbs.sort_unstable();
    verbs.dedup();
    let shapes: Vec<_> = frozen.into_iter().map(|(.., shape)| shape).collect();
    let mut conditions = vec![
        format!(
            "has(request.resourceAttributes) && request.resourceAttributes.verb in {}",
            list(&verbs)
        ),
        shapes.join(" || "),
    ];
    conditions.extend(UNFROZEN.map(|shape| format!("!({shape})")));
    Some(conditions)
}

/// Writes that are never frozen.
const UNFROZEN: [&str; 4] = [
    // Questions and answers, which are not stored.
    "request.resourceAttributes.group in ['authentication.k8s.io', 'authorization.k8s.io']",
    // Tokens, and streams to nodes, which are not either.
    "request.resourceAttributes.group == '' && \
     request.resourceAttributes.subresource in ['attach', 'exec', 'portforward', 'proxy', 'token']",
    // Heartbeats and leader election: a node whose lease ends loses its pods, and a controller that
    // cannot renew its own ends. They change what is there already, by whoever it is.
    "request.resourceAttributes.group == 'coordination.k8s.io' && \
     request.resourceAttributes.resource == 'leases' && \
     request.resourceAttributes.subresource == '' && \
     request.resourceAttributes.verb in ['update', 'patch']",
    // What kubelets say of their node and its pods.
    "request.user.startsWith('system:node:') && 'system:nodes' in request.groups && \
     request.resourceAttributes.group == '' && \
     request.resourceAttributes.resource in ['nodes', 'pods'] && \
     request.resourceAttributes.subresource == 'status' && \
     request.resourceAttributes.verb in ['update', 'patch']",
];

/// A list in CEL.
fn list(values: &[&str]) -> String {
    format!("['{}']", values.join("', '"))
}

fn guard(name: &'static str, conditions: Vec<String>) -> Authorizer {
    webhook(name, entry::GUARD, "Deny", conditions)
}

fn webhook(
    name: &'static str,
    kubeconfig: &str,
    failure_policy: &'static str,
    conditions: Vec<String>,
) -> Authorizer {
    let conditions = conditions.into_iter();
    Authorizer {
        kind: "Webhook",
        name,
        webhook: Some(Webhook {
            subject_access_review_version: "v1",
            match_condition_subject_access_review_version: "v1",
            timeout: TIMEOUT,
            failure_policy,
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile",
                kube_config_file: format!("{CONFIG_DIRECTORY}/{kubeconfig}"),
            },
            match_conditions: conditions
                .map(|expression| Condition { expression })
                .collect(),
        }),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    api_version: &'static str,
    kind: &'static str,
    authorizers: Vec<Authorizer>,
}

#[derive(Serialize)]
struct Authorizer {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    subject_access_review_version: &'static str,
    match_condition_subject_access_review_version: &'static str,
    timeout: &'static str,
    failure_policy: &'static str,
    connection_info: ConnectionInfo,
    match_conditions: Vec<Condition>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: &'static str,
    kube_config_file: String,
}

#[derive(Serialize)]
struct Condition {
    expression: String,
}
