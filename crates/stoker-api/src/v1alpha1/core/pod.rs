//! Containers, volumes and scheduling.

use k8s_openapi::api::core::v1 as core;
use kube::core::Rule;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::super::rules::LABEL;
use super::{Cut as _, finished, list_of, security, upstream};

/// Most containers, volumes and mounts of each kind: what CEL's cost is reckoned with.
const MOST_CONTAINERS: usize = 8;
const MOST_VOLUMES: usize = 32;
const MOST_MOUNTS: usize = 32;

/// An amount that is not negative. Its length is for the API server's limits.
const AMOUNT: &str =
    "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$";

/// Of a component. Only here are requests compared with limits: an API server of 1.33 reckons the
/// comparison of one amount with an eighth of what a rule may cost, however long it can be.
pub(super) fn resources(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = upstream::<core::ResourceRequirements>(generator);
    bound_resources(&mut schema);
    let within = |name| {
        format!(
            "(!('{name}' in self.requests) || !('{name}' in self.limits) || \
             !quantity(string(self.requests['{name}']))\
             .isGreaterThan(quantity(string(self.limits['{name}']))))"
        )
    };
    schema.rule(
        &[],
        Rule::new(format!(
            "!has(self.requests) || !has(self.limits) || ({} && {})",
            within("cpu"),
            within("memory"),
        ))
        .message("resources: a request cannot be more than its limit"),
    );
    finished(schema)
}

fn bound_resources(schema: &mut Value) {
    schema.keep(&[], &["limits", "requests"]);
    for amounts in ["limits", "requests"] {
        schema.set(&[amounts], "maxProperties", json!(16));
        let amount = &mut schema.part(&[amounts])["additionalProperties"];
        amount["maxLength"] = json!(32);
        amount["minimum"] = json!(0);
        amount["pattern"] = json!(AMOUNT);
    }
}

pub(super) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    finished(upstream::<core::Affinity>(generator))
}

pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    finished(list_of::<core::Toleration>(generator, 64))
}

pub(super) fn topology_spread(generator: &mut SchemaGenerator) -> Schema {
    finished(list_of::<core::TopologySpreadConstraint>(generator, 16))
}

pub(super) fn containers(generator: &mut SchemaGenerator) -> Schema {
    finished(containers_value(generator, &[]))
}

pub(super) fn init_containers(generator: &mut SchemaGenerator) -> Schema {
    finished(containers_value(generator, &["restartPolicy"]))
}

fn containers_value(generator: &mut SchemaGenerator, more: &[&str]) -> Value {
    let mut schema = list_of::<core::Container>(generator, MOST_CONTAINERS);
    by_name(&mut schema);
    let kept = [
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "volumeMounts",
        "workingDir",
    ];
    schema.keep(&["[]"], &[&kept, more].concat());
    schema.set(&["[]"], "required", json!(["image", "name"]));
    schema.set(&["[]", "image"], "minLength", json!(1));
    // No port of the node, no host other than the pod itself.
    schema.keep(
        &["[]", "ports", "[]"],
        &["containerPort", "name", "protocol"],
    );
    schema.set(&["[]", "ports", "[]", "protocol"], "default", json!("TCP"));
    for hook in ["postStart", "preStop"] {
        let at = ["[]", "lifecycle", hook];
        schema.keep(&at, &["exec", "httpGet", "sleep"]);
        without_host(&mut schema, &at);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        without_host(&mut schema, &["[]", probe]);
    }
    bound_resources(schema.part(&["[]", "resources"]));
    security::restrict(schema.part(&["[]", "securityContext"]));
    restrict_mounts(schema.part(&["[]", "volumeMounts"]));
    schema.rule(
        &[],
        Rule::new(format!(
            "self.all(c, c.name.matches('{LABEL}') && !c.name.startsWith('stoker-') && \
             !(c.name in {RESERVED_CONTAINERS}))"
        ))
        .message(
            "additional containers: a name is a DNS label that is not one of the control plane's \
             own (kube-apiserver, kube-controller-manager, kube-scheduler, konnectivity-server) \
             and does not start with stoker-",
        ),
    );
    schema
}

const RESERVED_CONTAINERS: &str =
    "['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'konnectivity-server']";

fn without_host(schema: &mut Value, at: &[&str]) {
    let within = |name| [at, &[name]].concat();
    schema.keep(
        &within("httpGet"),
        &["httpHeaders", "path", "port", "scheme"],
    );
    if at.iter().any(|name| name.ends_with("Probe")) {
        schema.keep(&within("tcpSocket"), &["port"]);
    }
}

/// A list whose items have names of their own.
fn by_name(schema: &mut Value) {
    schema.set(&[], "x-kubernetes-list-type", json!("map"));
    schema.set(&[], "x-kubernetes-list-map-keys", json!(["name"]));
    schema.set(&["[]", "name"], "maxLength", json!(63));
}

pub(super) fn volumes(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list_of::<core::Volume>(generator, MOST_VOLUMES);
    by_name(&mut schema);
    let sources = ["configMap", "emptyDir", "projected", "secret"];
    schema.keep(&["[]"], &[&sources[..], &["name"]].concat());
    let projected = ["configMap", "downwardAPI", "secret"];
    schema.keep(&["[]", "projected", "sources", "[]"], &projected);
    schema.set(&["[]", "projected", "sources"], "maxItems", json!(32));
    schema.rule(
        &["[]"],
        Rule::new(exactly_one(&sources)).message(
            "additionalVolumes: a volume is exactly one of configMap, emptyDir, projected and \
             secret: control-plane pods use no storage, devices or files of their node",
        ),
    );
    schema.rule(
        &["[]", "projected", "sources", "[]"],
        Rule::new(exactly_one(&projected)).message(
            "additionalVolumes: a projected source is exactly one of configMap, downwardAPI and \
             secret: control-plane pods hold no tokens of the management cluster",
        ),
    );
    schema.rule(
        &[],
        Rule::new(format!(
            "self.all(v, v.name.matches('{LABEL}') && !v.name.startsWith('stoker-') && \
             !(v.name in ['api-server', 'controller-manager', 'scheduler']))"
        ))
        .message(
            "additionalVolumes: a name is a DNS label that is not one of the control plane's own \
             (api-server, controller-manager, scheduler) and does not start with stoker-",
        ),
    );
    finished(schema)
}

fn exactly_one(sources: &[&str]) -> String {
    let counted: Vec<String> = sources
        .iter()
        .map(|source| format!("(has(self.{source}) ? 1 : 0)"))
        .collect();
    format!("{} == 1", counted.join(" + "))
}

pub(super) fn mounts(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list_of::<core::VolumeMount>(generator, MOST_MOUNTS);
    restrict_mounts(&mut schema);
    finished(schema)
}

/// Mounts below `/etc/kubernetes` have a folder of their own there: all files of Stoker have a dot in
/// their name. The kubelet makes such folders in a projected volume
/// (`pkg/volume/util/nested_volumes.go`, `MakeNestedMountpoints`).
fn restrict_mounts(schema: &mut Value) {
    schema.set(&[], "maxItems", json!(MOST_MOUNTS));
    schema.set(&["[]", "name"], "maxLength", json!(63));
    schema.set(&["[]", "mountPath"], "maxLength", json!(512));
    let propagation = json!(["HostToContainer", "None"]);
    schema.set(&["[]", "mountPropagation"], "enum", propagation);
    schema.rule(
        &[],
        Rule::new(format!("self.all(m, {MOUNTABLE})")).message(
            "volumeMounts: mountPath is an absolute path without . and .. and colons, and hides \
             no file of the control plane: inside /etc/kubernetes it is in a folder whose name \
             has no dot",
        ),
    );
}

/// CEL of a mount `m`. Not a parent of ours, not one of our files; `..` as part of a path is refused.
const MOUNTABLE: &str = "m.mountPath.matches('^(/[^/:]+)+/?$') && \
    !m.mountPath.matches('/[.][.]?(/|$)') && !m.mountPath.matches('^/etc/?$') && \
    !m.mountPath.matches('^/etc/kubernetes(/?$|/[^/]*[.])')";
