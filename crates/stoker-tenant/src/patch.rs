//! The user's RFC 6902 patches.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;
use stoker_api::v1alpha1::{JsonPatch, JsonPatchOperation as Operation};

/// A JSON patch of the spec that does not apply. The message names its field and says why.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}[{index}] ({operation} {path:?}): {reason}")]
pub struct PatchError {
    /// Path of the list of patches in the spec.
    pub field: &'static str,
    /// Place of the patch in that list, from 0.
    pub index: usize,
    /// The RFC 6902 operation.
    pub operation: &'static str,
    /// JSON pointer that the patch gives.
    pub path: String,
    /// Why it does not apply, and what to do where that is clear.
    pub reason: String,
}

/// Applies `patches`, the value of `field`, in order.
///
/// # Errors
/// The first patch that does not apply, or that would change the document's kind or API version.
pub(crate) fn apply(
    field: &'static str,
    mut document: Value,
    patches: &[JsonPatch],
) -> Result<Value, PatchError> {
    let identity = identity(&document);
    for (index, patch) in patches.iter().enumerate() {
        let refused = |reason: String| PatchError {
            field,
            index,
            operation: name(patch.op),
            path: patch.path.clone(),
            reason,
        };
        let operation = parse(patch).map_err(refused)?;
        json_patch::patch(&mut document, &[operation])
            .map_err(|error| refused(explain(&document, patch, &error.kind)))?;
        if self::identity(&document) != identity {
            return Err(refused("apiVersion and kind cannot change".to_owned()));
        }
    }
    Ok(document)
}

fn identity(document: &Value) -> [Option<Value>; 2] {
    ["apiVersion", "kind"].map(|key| document.get(key).cloned())
}

/// `patch` as the crate's own operation; the error says what is missing or malformed.
fn parse(patch: &JsonPatch) -> Result<PatchOperation, String> {
    let needs_value = matches!(
        patch.op,
        Operation::Add | Operation::Replace | Operation::Test
    );
    if needs_value && patch.value.is_none() {
        return Err(format!("{} needs a value", name(patch.op)));
    }
    if matches!(patch.op, Operation::Move | Operation::Copy) && patch.from.is_none() {
        return Err(format!("{} needs from", name(patch.op)));
    }
    serde_json::to_value(patch)
        .and_then(serde_json::from_value)
        .map_err(|_| "path and from must be JSON pointers such as /evictionHard".to_owned())
}

fn explain(document: &Value, patch: &JsonPatch, kind: &PatchErrorKind) -> String {
    let missing = |pointer: &str| document.pointer(pointer).is_none();
    let parent = patch.path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let from = patch.from.as_deref().unwrap_or_default();
    match patch.op {
        Operation::Replace if missing(&patch.path) => {
            "nothing is there to replace: use add to set it".to_owned()
        }
        Operation::Remove if missing(&patch.path) => "nothing is there to remove".to_owned(),
        Operation::Test if missing(&patch.path) => "nothing is there to test".to_owned(),
        Operation::Test => "the value there is not the one given".to_owned(),
        Operation::Move | Operation::Copy if missing(from) => format!("nothing is at {from:?}"),
        Operation::Add | Operation::Move | Operation::Copy if missing(parent) => {
            format!("{parent:?} is not there: add it first")
        }
        _ => kind.to_string(),
    }
}

const fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Add => "add",
        Operation::Remove => "remove",
        Operation::Replace => "replace",
        Operation::Move => "move",
        Operation::Copy => "copy",
        Operation::Test => "test",
    }
}
