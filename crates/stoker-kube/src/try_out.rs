//! Server-side apply that stores nothing: what an API server would say of an object.

use http::HeaderMap;
use http::header::WARNING;
use http_body_util::BodyExt as _;
use kube::Resource as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::client::Body;
use kube::core::{Request, Status};

use crate::apply::Writer;
use crate::desired::Desired;
use crate::error::Error;

/// What an API server said of an object that it was asked to store and did not.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// What it warned of.
    pub warnings: Vec<String>,
    /// Why it would refuse it; `None` when it would take it.
    pub refusal: Option<Box<Status>>,
}

impl Writer {
    /// Asks what [`Writer::apply`] would be answered (`dryRun=All`): the object goes through validation, quotas and the
    /// cluster's own admission, and nothing is stored.
    ///
    /// # Errors
    /// [`Error::Apply`] when no answer came that can be read.
    pub async fn try_out(&self, desired: &Desired) -> Result<Tried, Error> {
        let failed = |source: kube::Error| Error::Apply {
            key: desired.key().clone(),
            source: Box::new(source),
        };
        let key = desired.key();
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::apply(self.field_manager()).force()
        };
        let url = DynamicObject::url_path(key.resource(), key.namespace());
        let request = Request::new(&url)
            .patch(key.name(), &params, &Patch::Apply(()))
            .map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let request = request.map(|_| Body::from(desired.body().to_vec()));
        let answer = self.client().send(request).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let warnings = warnings(&head.headers);
        if head.status.is_success() {
            return Ok(Tried {
                warnings,
                refusal: None,
            });
        }
        let body = body.collect().await.map_err(failed)?.to_bytes();
        let mut status: Status = serde_json::from_slice(&body)
            .map_err(|error| failed(kube::Error::SerdeError(error)))?;
        status.code = head.status.as_u16();
        Ok(Tried {
            warnings,
            refusal: Some(Box::new(status)),
        })
    }
}

/// Of `299 - "text"`, as API servers warn, the text (RFC 7234, section 5.5).
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(WARNING).into_iter();
    values
        .filter_map(|value| value.to_str().ok()?.strip_prefix("299 - \""))
        .filter_map(|quoted| quoted.strip_suffix('"'))
        .map(unquoted)
        .collect()
}

fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_text_of_a_warning_is_what_stands_between_its_quotes() {
        let mut headers = HeaderMap::new();
        for value in [
            r#"299 - "would violate PodSecurity \"restricted:latest\"""#,
            "199 - \"of a proxy\"",
            r#"299 - "second""#,
        ] {
            headers.append(WARNING, HeaderValue::from_static(value));
        }
        assert_eq!(
            warnings(&headers),
            [r#"would violate PodSecurity "restricted:latest""#, "second"]
        );
    }
}
