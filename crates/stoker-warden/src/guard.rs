//! The guard's answers to `SubjectAccessReview`s (`authorization.k8s.io/v1`).

use serde::{Deserialize, Serialize};

/// A question, as far as its answer depends on it. What is absent is empty, as in Go.
#[derive(Debug, Default, Deserialize)]
pub struct Review {
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    user: String,
    /// Absent for paths that are no resources, which are never stored.
    resource_attributes: Option<Attributes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    verb: String,
    resource: String,
    subresource: String,
    name: String,
}

impl Review {
    /// Who asks.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.spec.user
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    status: Status,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Status {
    allowed: bool,
    denied: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Refuses writes and impersonations: the API server asks about no others than it was told to. Of
/// anything else the guard has no opinion, so that no mistake in a configuration locks readers out.
#[must_use]
pub fn answer(review: &Review) -> Answer {
    let reason = review.spec.resource_attributes.as_ref().and_then(refusal);
    let denied = reason.is_some();
    let mut answer = Answer::without_opinion(reason.unwrap_or_default());
    answer.status.denied = denied;
    answer
}

impl Answer {
    /// Neither allows nor denies.
    pub(crate) fn without_opinion(reason: String) -> Self {
        Self {
            api_version: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            status: Status {
                allowed: false,
                denied: false,
                reason,
            },
        }
    }
}

/// Why it is refused, for the person who asked.
fn refusal(asked: &Attributes) -> Option<String> {
    if asked.verb.starts_with("impersonate") {
        return Some(format!(
            "{:?} of {} is an identity of the platform that runs this control plane; nobody may impersonate it",
            asked.name, asked.resource
        ));
    }
    let what = match (asked.verb.as_str(), asked.subresource.as_str()) {
        ("create", "") => "creating objects",
        ("delete" | "deletecollection", _) | ("create", "eviction") => "deleting objects",
        ("update" | "patch" | "create", _) => "changing objects",
        _ => return None,
    };
    Some(format!(
        "writes are frozen: the provider of this control plane has suspended {what}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(verb: &str, resource: &str, subresource: &str, name: &str) -> Status {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "metadata": { "creationTimestamp": null }, "status": { "allowed": false },
            "spec": { "user": "jane", "groups": ["dev"], "resourceAttributes": {
                "verb": verb, "resource": resource, "subresource": subresource, "name": name,
        }}});
        answer(&serde_json::from_value(review).unwrap()).status
    }

    #[test]
    fn writes_are_refused_with_what_was_frozen() {
        for (verb, subresource, what) in [
            ("create", "", "creating"),
            ("update", "", "changing"),
            ("patch", "status", "changing"),
            ("create", "binding", "changing"),
            ("delete", "", "deleting"),
            ("deletecollection", "", "deleting"),
            ("create", "eviction", "deleting"),
        ] {
            let status = asked(verb, "pods", subresource, "");
            assert!(status.denied && !status.allowed, "{verb} {subresource}");
            assert!(status.reason.contains(what), "{verb}: {}", status.reason);
        }
    }

    #[test]
    fn impersonation_is_refused_with_the_identity() {
        for verb in ["impersonate", "impersonate:user-info"] {
            let status = asked(verb, "groups", "", "system:masters");
            assert!(status.denied, "{verb}");
            assert!(status.reason.contains("system:masters"));
        }
    }

    #[test]
    fn of_reads_and_paths_there_is_no_opinion() {
        for verb in ["get", "list", "watch", "bind", ""] {
            let status = asked(verb, "pods", "", "");
            assert!(!status.denied && !status.allowed, "{verb}");
        }
        let path = json!({ "spec": { "nonResourceAttributes": { "verb": "post", "path": "/x" } } });
        assert!(!answer(&serde_json::from_value(path).unwrap()).status.denied);
        assert!(!answer(&Review::default()).status.denied);
    }

    #[test]
    fn an_answer_is_a_review_as_the_api_server_decodes_it() {
        let review = Review {
            spec: Spec {
                user: "jane".to_owned(),
                resource_attributes: Some(Attributes {
                    verb: "delete".to_owned(),
                    ..Attributes::default()
                }),
            },
        };
        let answer = serde_json::to_value(answer(&review)).unwrap();
        assert_eq!(answer["apiVersion"], "authorization.k8s.io/v1");
        assert_eq!(answer["kind"], "SubjectAccessReview");
        assert_eq!(answer["status"]["allowed"], false);
        assert_eq!(answer["status"]["denied"], true);
    }
}
