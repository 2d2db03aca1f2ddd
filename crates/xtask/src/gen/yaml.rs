//! YAML whose bytes depend on nothing but the value.

use anyhow::Result;
use serde_json::{Map, Number, Value};

/// `value` as YAML with sorted keys and whole numbers as integers.
pub(super) fn canonical(value: Value) -> Result<String> {
    let mut text = serde_saphyr::to_string(&sorted(value))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
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
