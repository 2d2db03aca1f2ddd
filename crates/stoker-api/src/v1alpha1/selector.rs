//! Selection by labels, with the meaning of `metav1.LabelSelector`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{LABEL_VALUE, QUALIFIED_NAME};

/// Selects objects by their labels; an empty one selects all.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that an object must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 32,
        "additionalProperties" = { "type": "string", "maxLength": 63 }
    ))]
    #[x_kube(validation = Rule::new(format!(
        "self.all(k, size(k) <= 317 && k.matches('{QUALIFIED_NAME}') && self[k].matches('{LABEL_VALUE}'))"
    )).message("matchLabels: names and values are those of labels"))]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// One condition on a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(
    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 \
     : !has(self.values) || size(self.values) == 0"
).message("matchExpressions: In and NotIn need values, Exists and DoesNotExist have none"))]
pub struct Requirement {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is judged.
    pub operator: Operator,
    /// What the label's value is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is judged.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is there and has one of the values.
    In,
    /// It is not there or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(has)
            && self.match_expressions.iter().all(|one| one.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_selector_means_what_it_means_in_kubernetes() {
        let labels = |value: Value| serde_json::from_value(value).unwrap();
        let some = labels(json!({ "tier": "gold", "team": "a" }));
        let none = labels(json!({}));
        let one = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "tier", "operator": operator, "values": values }] });
        for (selector, of_some, of_none) in [
            (json!({}), true, true),
            (json!({ "matchLabels": { "tier": "gold" } }), true, false),
            (
                json!({ "matchLabels": { "tier": "gold", "team": "b" } }),
                false,
                false,
            ),
            (one("In", &["gold", "silver"]), true, false),
            (one("In", &["silver"]), false, false),
            (one("NotIn", &["gold"]), false, true),
            (one("NotIn", &["silver"]), true, true),
            (one("Exists", &[]), true, false),
            (one("DoesNotExist", &[]), false, true),
        ] {
            let read: Selector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(read.matches(&some), of_some, "{selector}");
            assert_eq!(read.matches(&none), of_none, "{selector}");
            assert_eq!(read.is_empty(), selector == json!({}));
        }
    }
}
