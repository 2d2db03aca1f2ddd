//! YAML whose bytes depend on nothing but the value.

use anyhow::Result;
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::FlowMap;

/// A schema of scalars at most this long, as JSON, stands on one line.
const ONE_LINE: usize = 90;

/// `value` as YAML with sorted keys and whole numbers as integers. Small schemas stand on one line: most
/// of a CRD's bytes would be their indentation.
pub(super) fn canonical(value: Value) -> Result<String> {
    let mut text = serde_saphyr::to_string(&Node(&sorted(value)))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

struct Node<'a>(&'a Value);

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) if is_small(self.0, fields) => {
                FlowMap(self.0).serialize(serializer)
            }
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(key, value)| (key, Node(value))))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Node)),
            scalar => scalar.serialize(serializer),
        }
    }
}

fn is_small(value: &Value, fields: &Map<String, Value>) -> bool {
    let plain = fields
        .values()
        .all(|field| !field.is_object() && !field.is_array());
    plain && fields.contains_key("type") && value.to_string().len() <= ONE_LINE
}

/// `value` with sorted keys and whole numbers as integers: the order of a JSON map depends on a cargo feature that any dependency may turn on.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|(first, _), (second, _)| first.cmp(second));
            Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Number(number) => Value::Number(whole(number)),
        other => other,
    }
}

/// schemars writes limits as floating-point numbers.
fn whole(number: Number) -> Number {
    match number.as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is whole and below 2^53"
        )]
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            Number::from(float as i64)
        }
        _ => number,
    }
}
