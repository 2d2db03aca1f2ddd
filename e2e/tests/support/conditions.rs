//! Reading conditions, the same way in every suite.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition of a type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|found| found.type_ == type_)
}

/// A line for each, for messages.
pub(crate) fn described(conditions: &[Condition]) -> Vec<String> {
    let line = |found: &Condition| {
        format!(
            "{}={} {}: {}",
            found.type_, found.status, found.reason, found.message
        )
    };
    conditions.iter().map(line).collect()
}
