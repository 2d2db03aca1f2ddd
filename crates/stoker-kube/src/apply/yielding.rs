//! Apply of an object of which one field is somebody else's as soon as he sets it.

use kube::core::Status;

use super::{Brief, Writer};
use crate::call::METADATA;
use crate::desired::{Desired, FieldPath};
use crate::error::Error;
use crate::fingerprint::Fingerprint;

impl Writer {
    /// Applies everything but takes the field at `path` from nobody: whoever changed it owns it, as the API server has
    /// it in `managedFields`, until he removes it or the object is gone.
    pub(super) async fn apply_yielding(
        &self,
        desired: &Desired,
        path: FieldPath,
    ) -> Result<Fingerprint, Error> {
        let key = desired.key();
        let failed = |source| Error::Apply {
            key: key.clone(),
            source: Box::new(source),
        };
        let gently = self.apply_to(key, desired.body().to_vec(), false, METADATA);
        let Brief { metadata } = match gently.await {
            Ok(stored) => stored,
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let body = if names(&status, path) {
                    without(desired.body(), path)
                } else {
                    desired.body().to_vec()
                };
                let firmly = self.apply_to(key, body, true, METADATA);
                firmly.await.map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(metadata)
    }
}

/// Whether the field is among those that others own.
fn names(status: &Status, path: FieldPath) -> bool {
    let field = format!(".{}", path.join("."));
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.field == field)
}

/// The body without the field. It is JSON of ours, and has it.
fn without(body: &[u8], path: FieldPath) -> Vec<u8> {
    let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(body) else {
        return body.to_vec();
    };
    if let Some((last, parents)) = path.split_last() {
        let parent = parents
            .iter()
            .try_fold(&mut object, |value, part| value.get_mut(*part));
        if let Some(fields) = parent.and_then(serde_json::Value::as_object_mut) {
            fields.remove(*last);
        }
    }
    object.to_string().into_bytes()
}
