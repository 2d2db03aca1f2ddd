//! One object of Kamaji's as one of Stoker's. Pure.
//!
//! What Stoker has is asked of its own CRDs, so that a field that comes later is carried over without a change here.

use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde_json::{Map, Value, json};
use stoker_api::StorageId;
use stoker_api::admission_plugins;
use stoker_api::arguments::{Argument, Component};
use stoker_api::v1alpha1::{DataStore, KubeconfigGenerator, MASTERS, TenantControlPlane};
use stoker_api::version::KubernetesVersion;

use super::prune::prune;

const THEIRS: &str = "kamaji.clastix.io";
const OURS: &str = "stoker.dev";
const API_VERSION: &str = "stoker.dev/v1alpha1";
/// Written by API servers and controllers, not by people.
const KEPT_METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Annotations of Kamaji's that mean nothing here.
const DROPPED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "kamaji.clastix.io/kubeconfig-secret-key",
        "the operator needs no stored administrator's credential",
    ),
    (
        "kamaji.clastix.io/cleanup-prior-migration",
        "a DataStore cannot change yet",
    ),
    (
        "kamaji.clastix.io/migration-timeout",
        "a DataStore cannot change yet",
    ),
];

/// Why a field is left out, by the beginning of its path; what is not here is merely unknown.
const REASONS: [(&str, &str); 7] = [
    (
        "spec.addons.konnectivity.server",
        "the tunnel's server is the operator's warden",
    ),
    ("spec.dataStoreOverrides", "one DataStore holds a tenant"),
    (
        "spec.controlPlane.deployment.resources.kine",
        "there is no kine: etcd itself",
    ),
    (
        "spec.controlPlane.deployment.extraArgs.kine",
        "there is no kine: etcd itself",
    ),
    (
        "spec.controlPlane.deployment.additionalVolumes",
        "volumes are configMap, secret, emptyDir or projected",
    ),
    (
        "spec.basicAuth",
        "the pool is reached with client certificates",
    ),
    (
        "spec.controlPlane.deployment",
        "control-plane pods keep to the restricted pod profile",
    ),
];

/// What came of a conversion.
#[derive(Debug, Default)]
pub(crate) struct Converted {
    pub(crate) objects: Vec<Value>,
    /// Everything that is lost or would be refused: object, field, why.
    pub(crate) warnings: Vec<String>,
}

/// Objects of other groups pass as they are.
pub(crate) fn convert(objects: Vec<Value>) -> Converted {
    let mut converted = Converted::default();
    for object in objects {
        let group = object["apiVersion"].as_str().unwrap_or_default();
        if group.split('/').next() != Some(THEIRS) {
            converted.objects.push(object);
            continue;
        }
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut conversion = Conversion {
            title: format!("{kind} {name}"),
            warnings: &mut converted.warnings,
        };
        if let Some(object) = conversion.object(&kind, object) {
            converted.objects.push(object);
        }
    }
    converted
}

struct Conversion<'a> {
    title: String,
    warnings: &'a mut Vec<String>,
}

impl Conversion<'_> {
    fn warn(&mut self, text: &str) {
        self.warnings.push(format!("{}: {text}", self.title));
    }

    fn object(&mut self, kind: &str, mut object: Value) -> Option<Value> {
        let schema = match kind {
            "TenantControlPlane" => schema::<TenantControlPlane>(),
            "DataStore" => schema::<DataStore>(),
            "KubeconfigGenerator" => schema::<KubeconfigGenerator>(),
            _ => {
                self.warn("left out: Stoker has no such kind");
                return None;
            }
        };
        let metadata = self.metadata(&object["metadata"]);
        let mut spec = object["spec"].take();
        match kind {
            "TenantControlPlane" => self.tenant(&mut spec),
            "DataStore" => {
                let driver = spec["driver"].as_str().unwrap_or_default();
                if driver != "etcd" {
                    self.warn(&format!("left out: spec.driver {driver}: the pool is etcd"));
                    return None;
                }
            }
            _ => self.generator(&spec),
        }
        rename(&mut spec);
        let mut dropped = Vec::new();
        let known = &schema["properties"]["spec"];
        prune(&mut spec, known, "spec", &mut dropped);
        for path in dropped {
            let because = REASONS.iter().find(|(start, _)| path.starts_with(start));
            let because = because.map_or("Stoker has no such field", |(_, because)| because);
            self.warn(&format!("{path}: left out: {because}"));
        }
        let object = json!({
            "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec,
        });
        self.refusals(&schema, &object);
        Some(object)
    }

    fn metadata(&mut self, found: &Value) -> Value {
        let mut kept = Map::new();
        for name in KEPT_METADATA {
            let mut value = found[name].clone();
            if name == "annotations" {
                self.annotations(&mut value);
            }
            rename(&mut value);
            let empty = value.as_object().is_some_and(Map::is_empty);
            if !value.is_null() && !empty {
                kept.insert(name.to_owned(), value);
            }
        }
        Value::Object(kept)
    }

    fn annotations(&mut self, found: &mut Value) {
        let Some(annotations) = found.as_object_mut() else {
            return;
        };
        annotations.remove(LAST_APPLIED);
        for (name, because) in DROPPED_ANNOTATIONS {
            if annotations.remove(name).is_some() {
                self.warn(&format!("annotation {name}: left out: {because}"));
            }
        }
    }

    fn tenant(&mut self, spec: &mut Value) {
        for field in ["dataStoreSchema", "dataStoreUsername"] {
            let text = spec[field].as_str().unwrap_or_default();
            if !text.is_empty() && text.parse::<StorageId>().is_err() {
                self.warn(&format!(
                    "spec.{field}: left out: a new identity is minted for the tenant"
                ));
            }
            if text.parse::<StorageId>().is_err() {
                remove(spec, field);
            }
        }
        self.agent(spec);
        let version = spec["kubernetes"]["version"].as_str();
        let version = version.and_then(|text| text.parse::<KubernetesVersion>().ok());
        if let (Some(version), Some(plugins)) = (
            version,
            spec["kubernetes"]["admissionControllers"].as_array_mut(),
        ) {
            let known: Vec<_> = admission_plugins::of(version.minor).collect();
            plugins.retain(|plugin| {
                let name = plugin.as_str().unwrap_or_default();
                let kept = known.contains(&name);
                if !kept {
                    self.warn(&format!(
                        "spec.kubernetes.admissionControllers: {name}: left out: kube-apiserver {version} has no usable plugin of that name"
                    ));
                }
                kept
            });
        }
        let arguments = spec.pointer_mut("/controlPlane/deployment/extraArgs");
        let mut arguments = arguments.and_then(Value::as_object_mut);
        for component in Component::ALL {
            let field = component.field();
            let list = arguments.as_mut().and_then(|all| all.get_mut(field));
            if let Some(list) = list.and_then(Value::as_array_mut) {
                list.retain(|argument| self.keeps(component, argument));
            }
        }
    }

    /// What an agent of konnectivity is told means nothing to the one that takes its place.
    fn agent(&mut self, spec: &mut Value) {
        let Some(agent) = spec.pointer_mut("/addons/konnectivity/agent") else {
            return;
        };
        for field in ["image", "version", "extraArgs"] {
            if agent.get(field).is_some() {
                self.warn(&format!(
                    "spec.addons.konnectivity.agent.{field}: left out: the tunnel's agent is stoker-node"
                ));
                remove(agent, field);
            }
        }
    }

    fn keeps(&mut self, component: Component, argument: &Value) -> bool {
        let text = argument.as_str().unwrap_or_default();
        match Argument::parse(component, text) {
            Ok(_) => true,
            Err(refused) => {
                let field = component.field();
                self.warn(&format!(
                    "spec.controlPlane.deployment.extraArgs.{field}: {text}: left out: {refused}"
                ));
                false
            }
        }
    }

    fn generator(&mut self, spec: &Value) {
        let groups = spec["groups"].as_array();
        let mut groups = groups.into_iter().flatten();
        if groups.any(|group| group["stringValue"] == MASTERS) {
            self.warn(&format!(
                "spec.groups: {MASTERS} is refused; kubeadm:cluster-admins is bound to cluster-admin"
            ));
        }
        self.warn("a client certificate lives a day, where Kamaji's lives a year: set spec.expirationSeconds for another");
    }

    /// What the API server's own rules say of the result.
    fn refusals(&mut self, schema: &Value, object: &Value) {
        let outcome = Validator::new().validate_with_defaults(schema, object, None);
        let refused: Vec<_> = outcome.err().into_iter().flatten().collect();
        for error in refused {
            self.warn(&format!(
                "would be refused: {}: {}",
                error.field_path, error.message
            ));
        }
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Keys and texts with Kamaji's group get ours: labels, selectors, affinities.
fn rename(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let renamed = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                rename(&mut value);
                (ours(&key).unwrap_or(key), value)
            });
            *fields = renamed.collect();
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        Value::String(text) => {
            if let Some(renamed) = ours(text) {
                *text = renamed;
            }
        }
        _ => {}
    }
}

fn ours(text: &str) -> Option<String> {
    let name = text.strip_prefix(THEIRS)?.strip_prefix('/')?;
    Some(format!("{OURS}/{name}"))
}

fn schema<K: CustomResourceExt>() -> Value {
    let crd = serde_json::to_value(K::crd()).unwrap_or_default();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}
