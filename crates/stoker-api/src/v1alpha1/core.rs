//! Parts of core/v1 inside our spec: upstream's types with upstream's schema, cut to what a
//! control-plane pod may have and without the descriptions, which would make the CRD too large.
//!
//! What is cut here does not exist for an API server, so it is refused or dropped at admission;
//! `stoker-control-plane` forces the restricted profile once more on what it builds.

mod pod;
mod security;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A type of ours around one of core/v1, with a schema of its own.
macro_rules! embedded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $schema:path) => {
        $(#[$doc])*
        #[derive(Serialize, Clone, Debug, Default, PartialEq)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                with_textual_quantities(deserializer).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                $schema(generator)
            }
        }
    };
}

embedded!(
    /// Requests and limits of a container.
    Resources(core::ResourceRequirements),
    pod::resources
);
embedded!(
    /// Which nodes and neighbours pods prefer, need or avoid.
    Affinity(core::Affinity),
    pod::affinity
);
embedded!(
    /// Taints that pods tolerate.
    Tolerations(Vec<core::Toleration>),
    pod::tolerations
);
embedded!(
    /// How pods spread over failure domains.
    TopologySpread(Vec<core::TopologySpreadConstraint>),
    pod::topology_spread
);
embedded!(
    /// Containers beside the control plane's own.
    Containers(Vec<core::Container>),
    pod::containers
);
embedded!(
    /// Containers that run before the others, or beside them with `restartPolicy: Always`.
    InitContainers(Vec<core::Container>),
    pod::init_containers
);
embedded!(
    /// Volumes for mounts of people.
    Volumes(Vec<core::Volume>),
    pod::volumes
);
embedded!(
    /// Mounts of volumes of people.
    VolumeMounts(Vec<core::VolumeMount>),
    pod::mounts
);
embedded!(
    /// Security settings of a container, as far as the restricted profile leaves a choice.
    ContainerSecurity(core::SecurityContext),
    security::container
);
embedded!(
    /// Security settings of the pod, as far as the restricted profile leaves a choice.
    PodSecurity(core::PodSecurityContext),
    security::pod
);

impl Resources {
    /// What was asked for, with requests of CPU and memory, as quantities, for what it does not mention. No limits of
    /// ours: an API server that is throttled or killed under load takes its tenant with it. A limit that is asked for
    /// without a request is the request too, as everywhere in Kubernetes.
    #[must_use]
    pub fn or_requests(
        asked: Option<&Self>,
        cpu: &str,
        memory: &str,
    ) -> core::ResourceRequirements {
        let asked = asked.map(|asked| asked.0.clone()).unwrap_or_default();
        let limits = asked.limits.unwrap_or_default();
        let mut requests = asked.requests.unwrap_or_default();
        for (name, amount) in [("cpu", cpu), ("memory", memory)] {
            if !limits.contains_key(name) {
                requests
                    .entry(name.to_owned())
                    .or_insert_with(|| Quantity(amount.to_owned()));
            }
        }
        core::ResourceRequirements {
            requests: (!requests.is_empty()).then_some(requests),
            limits: (!limits.is_empty()).then_some(limits),
            claims: None,
        }
    }
}

/// Whether a list of core/v1 values is empty.
macro_rules! list {
    ($($name:ident),*) => {$(
        impl $name {
            pub(super) fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }
    )*};
}

list!(
    Tolerations,
    TopologySpread,
    Containers,
    InitContainers,
    Volumes,
    VolumeMounts
);

/// Reads a value whose quantities may be numbers, as the API server stores them.
fn with_textual_quantities<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    write_out_quantities(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn write_out_quantities(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_out_quantities),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("limits" | "requests", Value::Object(amounts)) => {
                        amounts.values_mut().for_each(write_out);
                    }
                    ("sizeLimit" | "divisor", amount @ Value::Number(_)) => write_out(amount),
                    (_, value) => write_out_quantities(value),
                }
            }
        }
        _ => {}
    }
}

fn write_out(amount: &mut Value) {
    if let Value::Number(number) = amount {
        *amount = Value::String(number.to_string());
    }
}

/// Upstream's schema of `T`, without descriptions.
fn upstream<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = generator.subschema_for::<T>().to_value();
    drop_descriptions(&mut schema);
    schema
}

/// The schema of `T` without descriptions, for what appears in the CRD again and again.
pub(super) fn bare<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    finished(upstream::<T>(generator))
}

/// Upstream's schema of a list of `T`, of at most `most` items.
fn list_of<T: JsonSchema>(generator: &mut SchemaGenerator, most: usize) -> Value {
    json!({ "type": "array", "maxItems": most, "items": upstream::<T>(generator) })
}

/// A property may be called `description`, but is then an object.
fn drop_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| key != "description" || !value.is_string());
            fields.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

/// Changes to a part of a schema, found by the names of fields from its root; `[]` goes to the
/// items of a list.
trait Cut {
    fn part(&mut self, path: &[&str]) -> &mut Value;
    fn keep(&mut self, path: &[&str], names: &[&str]);
    fn set(&mut self, path: &[&str], keyword: &str, value: Value);
    fn rule(&mut self, path: &[&str], rule: Rule);
}

impl Cut for Value {
    /// A path that is not there gives a new part, which the test of the generated CRD shows.
    fn part(&mut self, path: &[&str]) -> &mut Value {
        path.iter().fold(self, |schema, name| match *name {
            "[]" => &mut schema["items"],
            name => &mut schema["properties"][name],
        })
    }

    /// Removes all properties but `names`.
    fn keep(&mut self, path: &[&str], names: &[&str]) {
        let part = self.part(path);
        if let Some(properties) = part["properties"].as_object_mut() {
            properties.retain(|name, _| names.contains(&name.as_str()));
        }
    }

    fn set(&mut self, path: &[&str], keyword: &str, value: Value) {
        self.part(path)[keyword] = value;
    }

    fn rule(&mut self, path: &[&str], rule: Rule) {
        let part = self.part(path);
        if !part["x-kubernetes-validations"].is_array() {
            part["x-kubernetes-validations"] = json!([]);
        }
        if let Some(rules) = part["x-kubernetes-validations"].as_array_mut() {
            rules.push(json!(rule));
        }
    }
}

fn finished(schema: Value) -> Schema {
    // An object is always a schema.
    Schema::try_from(schema).unwrap_or_default()
}
