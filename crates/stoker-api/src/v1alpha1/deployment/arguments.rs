//! Arguments to add to the components.

use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::arguments::{self, Component};

/// Arguments to add per component, each as `--name=value`, after Stoker's own and in the order given.
/// One that Stoker sets as a mere default is replaced. docs/from-kamaji.md lists what is allowed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExtraArgs {
    /// kube-apiserver's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "api_server")]
    pub api_server: Vec<String>,
    /// kube-controller-manager's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "controller_manager")]
    pub controller_manager: Vec<String>,
    /// kube-scheduler's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scheduler")]
    pub scheduler: Vec<String>,
}

impl ExtraArgs {
    /// The arguments of `component`, as given.
    #[must_use]
    pub fn of(&self, component: Component) -> &[String] {
        match component {
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
            Component::Scheduler => &self.scheduler,
        }
    }
}

fn api_server(_: &mut SchemaGenerator) -> Schema {
    schema(Component::ApiServer)
}

fn controller_manager(_: &mut SchemaGenerator) -> Schema {
    schema(Component::ControllerManager)
}

fn scheduler(_: &mut SchemaGenerator) -> Schema {
    schema(Component::Scheduler)
}

fn schema(component: Component) -> Schema {
    let (form, malformed) = arguments::form();
    let (listed, unlisted) = arguments::on_allow_list(component);
    let (fixed, unfixed) = arguments::keeps_fixed();
    let rules = [
        Rule::new(form).message(malformed.as_str()),
        Rule::new(listed).message(Message::Expression(unlisted)),
        Rule::new(fixed).message(unfixed.as_str()),
    ];
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": rules,
    })
}
