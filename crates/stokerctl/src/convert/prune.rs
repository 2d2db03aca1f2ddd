//! What a CRD's schema does not know: the API server would drop it silently.

use serde_json::{Map, Value};

/// Takes from `value` everything that `schema` does not know, and names each place. What is `null` is left out silently.
pub(super) fn prune(value: &mut Value, schema: &Value, path: &str, dropped: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(fields) => prune_fields(fields, schema, path, dropped),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, &schema["items"], &format!("{path}[{index}]"), dropped);
            }
        }
        _ => {}
    }
}

fn prune_fields(
    fields: &mut Map<String, Value>,
    schema: &Value,
    path: &str,
    dropped: &mut Vec<String>,
) {
    fields.retain(|_, value| !value.is_null());
    let known = &schema["properties"];
    let others = &schema["additionalProperties"];
    if others == true || (known.is_null() && others.is_null()) {
        return;
    }
    fields.retain(|name, value| {
        let place = format!("{path}.{name}");
        let inner = known.get(name).or(others.is_object().then_some(others));
        if let Some(inner) = inner {
            prune(value, inner, &place, dropped);
            return true;
        }
        // What says nothing loses nothing.
        if !is_empty(value) {
            dropped.push(place);
        }
        false
    });
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_named_and_free_ones_stay() {
        let schema = json!({ "properties": {
            "known": { "type": "string" },
            "list": { "items": { "properties": { "a": {} } } },
            "map": { "additionalProperties": { "properties": { "a": {} } } },
            "free": { "x-kubernetes-preserve-unknown-fields": true },
        } });
        let mut value = json!({
            "known": "x", "unknown": 1, "absent": null, "empty": { "a": [] },
            "list": [{ "a": 1, "b": 2 }],
            "map": { "x": { "a": 1, "b": 2 } },
            "free": { "anything": { "goes": 1 } },
        });
        let mut dropped = Vec::new();
        prune(&mut value, &schema, "spec", &mut dropped);
        let expected = json!({
            "known": "x", "list": [{ "a": 1 }], "map": { "x": { "a": 1 } },
            "free": { "anything": { "goes": 1 } },
        });
        assert_eq!(value, expected);
        dropped.sort();
        assert_eq!(dropped, ["spec.list[0].b", "spec.map.x.b", "spec.unknown"]);
    }
}
