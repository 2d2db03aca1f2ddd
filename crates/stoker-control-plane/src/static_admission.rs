//! Admission that a tenant's administrator can neither see nor take away (KEP-5793): policies in files of the API server.
//!
//! One rule: what the API server itself would dial, because a webhook is given by URL, is not management's. The pods'
//! `NetworkPolicy` stays the wall ([`crate::network_policy`]); this says at once, and to whom it concerns, what the wall
//! would swallow, and holds where a wall does not, towards the pod itself. Names that lead to management all the same,
//! and redirects, are the wall's.
//!
//! The API server looks at the directory when it changes and once a minute
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/manifest/source`). What it cannot read or compile it refuses to start
//! by, and keeps what it had if it runs.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use stoker_api::arguments::{Argument, Component};
use stoker_api::tenant::Tenant;

use crate::deployment::CONFIG_DIRECTORY;
use crate::metadata::metadata;
use crate::{Names, entry};

/// The gate under which an API server takes such files.
const GATE: &str = "ManifestBasedAdmissionControlConfig";
/// First minor in which it is on by default (`k8s.io/apiserver/pkg/features`).
const ON_BY_DEFAULT: u32 = 37;
/// Directory of the policies, among the API server's files: nothing else may be in it.
pub(crate) const DIRECTORY: &str = "static-admission";
/// Every name ends like this (`StaticConfigSuffix`), which no object that is created through the API may.
const NAME: &str = "webhook-urls.stoker.dev.static.k8s.io";
/// Networks in one expression: CEL's parser takes 100,000 characters, and a network has 43 at most, quoted.
const NETWORKS_PER_EXPRESSION: usize = 2_000;

/// Whether the tenant's API server takes policies from files. We never turn an alpha feature on ourselves.
pub(crate) fn asked(tenant: &Tenant) -> bool {
    let by_argument = tenant.deployment.extra_args.of(Component::ApiServer).iter();
    let by_argument = by_argument
        .filter_map(|text| Argument::parse(Component::ApiServer, text).ok())
        .filter(|argument| argument.name == "--feature-gates")
        .filter_map(|argument| setting(&argument.value))
        .next_back();
    by_argument
        .or_else(|| tenant.feature_gates.get(GATE).copied())
        .unwrap_or(tenant.version.minor >= ON_BY_DEFAULT)
}

/// The last setting of the gate in a flag's value, as components read it (`k8s.io/component-base/cli/flag`).
fn setting(value: &str) -> Option<bool> {
    let settings = value.split(',').filter_map(|one| one.split_once('='));
    let mut ours = settings.filter(|(name, _)| name.trim().trim_start_matches("kube:") == GATE);
    let on = ours.next_back()?.1.trim();
    Some(matches!(on, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What the API server is told, and the policies, if it takes them. `closed` are the networks that its pods must not reach.
pub(crate) fn config_map(tenant: &Tenant, closed: &BTreeSet<IpNet>) -> Option<ConfigMap> {
    asked(tenant).then(|| {
        let files = [
            (entry::ADMISSION.to_owned(), configuration()),
            (entry::WEBHOOK_URLS.to_owned(), webhook_urls(closed)),
        ];
        ConfigMap {
            metadata: metadata(tenant, &Names::of(tenant).static_admission, DIRECTORY),
            data: Some(files.into()),
            ..ConfigMap::default()
        }
    })
}

fn configuration() -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionPolicy
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ValidatingAdmissionPolicyConfiguration
    staticManifestsDir: {CONFIG_DIRECTORY}/{DIRECTORY}
"
    )
}

/// The rule, and that it is in force, everywhere and for everybody.
fn webhook_urls(closed: &BTreeSet<IpNet>) -> String {
    let metadata = || ObjectMeta {
        name: Some(NAME.to_owned()),
        ..ObjectMeta::default()
    };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata(),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![
                    written(
                        "admissionregistration.k8s.io",
                        &[
                            "mutatingwebhookconfigurations",
                            "validatingwebhookconfigurations",
                        ],
                    ),
                    written("apiextensions.k8s.io", &["customresourcedefinitions"]),
                ]),
                ..MatchResources::default()
            }),
            validations: Some(vec![Validation {
                expression: "variables.refused.size() == 0".to_owned(),
                // Of the failure of an expression the tenant is told the expression, but not those of the variables in it.
                message_expression: Some(MESSAGE.to_owned()),
                message: Some(WITHOUT_HOST.to_owned()),
                reason: Some("Forbidden".to_owned()),
            }]),
            variables: Some(variables(closed)),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: metadata(),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(NAME.to_owned()),
            validation_actions: Some(vec!["Deny".to_owned()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    };
    format!("{}---\n{}", yaml(&policy), yaml(&binding))
}

fn written(group: &str, resources: &[&str]) -> NamedRuleWithOperations {
    let list = |values: &[&str]| Some(values.iter().map(|&value| value.to_owned()).collect());
    NamedRuleWithOperations {
        api_groups: list(&[group]),
        api_versions: list(&["v1"]),
        operations: list(&["CREATE", "UPDATE"]),
        resources: list(resources),
        ..NamedRuleWithOperations::default()
    }
}

/// It names nothing of management.
const MESSAGE: &str = "'clientConfig.url must not lead to ' + variables.refused[0] + \
    ': the API server dials a URL itself, from outside this cluster, where only public names and addresses beyond the \
    networks of its provider are open to it. Name a Service in clientConfig.service instead, which is reached through \
    the tunnel'";

/// In its place where the host makes it too long.
const WITHOUT_HOST: &str = "clientConfig.url leads to where the API server must not dial: name a Service in \
    clientConfig.service instead, which is reached through the tunnel";

/// From the object to the hosts in it that are refused. A variable knows those before it.
fn variables(closed: &BTreeSet<IpNet>) -> Vec<Variable> {
    let lists = networks(closed);
    let closed = lists
        .iter()
        .map(|(name, _)| format!("variables.{name}.exists(n, cidr(n).containsIP(ip(h)))"));
    // Not global unicast: unspecified, loopback, link-local, multicast, broadcast.
    let closed: Vec<String> = std::iter::once("!ip(h).isGlobalUnicast()".to_owned())
        .chain(closed)
        .collect();
    let closed = closed.join(" || ");
    let refused = format!(
        "variables.hosts.filter(h, isIP(h) ? {closed} : \
         !h.matches('{SEVERAL_LABELS}') || h.matches('{OURS}'))"
    );
    let before = format!("oldObject == null ? [] : {}", urls("oldObject"));
    let steps = [
        ("urls", urls("object")),
        ("before", before),
        ("hosts", HOSTS.to_owned()),
        ("refused", refused),
    ];
    let steps = steps.map(|(name, expression)| (name.to_owned(), expression));
    let variables = lists.into_iter().chain(steps);
    variables
        .map(|(name, expression)| Variable { name, expression })
        .collect()
}

/// The URLs in an object of any of the kinds.
fn urls(object: &str) -> String {
    format!(
        "{object}.?webhooks.orValue([]).filter(w, has(w.clientConfig.url)).map(w, w.clientConfig.url) + \
         [?{object}.?spec.?conversion.?webhook.?clientConfig.?url]"
    )
}

/// The hosts of URLs that are new: lower-case, without port and brackets, and without dots at the end. What is no URL to CEL
/// stays as it is, and is no name; so does one without a host, which is the pod itself to Go.
const HOSTS: &str = "variables.urls.filter(u, !(u in variables.before))\
    .map(u, isURL(u) && url(u).getHostname() != '' ? \
    url(u).getHostname().lowerAscii().find('^.*[^.]') : u)";

/// A name with a dot. What is looked up without one is a Service beside the pod, or the pod itself. Nothing but ASCII: Go
/// would make digits and dots of characters that look like them (`net/http`, `idnaASCII`). Nor what looks like an IPv6
/// address and is none to CEL: IPv4 addresses in the form of IPv6 ones, and zones.
const SEVERAL_LABELS: &str = r"^[a-z0-9_-]+(\\.[a-z0-9_-]+)+$";

/// Names that the pod's resolver would look for in the management cluster, or in the pod. A number at the end is no domain:
/// Go takes `127.1` and `0x7f.0.0.1` for names, the C library, in a build with it, for addresses.
const OURS: &str = r"(^|\\.)(localhost|svc|cluster\\.local|[0-9]+|0x[0-9a-f]*)$";

/// Lists of the networks, each a variable of its own. IPv4 networks in the form of IPv6 ones CEL does not read.
fn networks(closed: &BTreeSet<IpNet>) -> Vec<(String, String)> {
    let mapped = |network: &&IpNet| matches!(network, IpNet::V6(six) if six.addr().to_ipv4_mapped().is_some());
    let networks = closed.iter().filter(|network| !mapped(network));
    let networks: Vec<String> = networks.map(|network| format!("'{network}'")).collect();
    let lists = networks.chunks(NETWORKS_PER_EXPRESSION).enumerate();
    lists
        .map(|(at, list)| (format!("closed{at}"), format!("[{}]", list.join(", "))))
        .collect()
}

fn yaml(object: &impl Serialize) -> String {
    // Strings in structs always serialize.
    serde_saphyr::to_string(object).unwrap_or_default()
}

#[cfg(test)]
mod tests;
