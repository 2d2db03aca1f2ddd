//! What an API server's answer to a trial means for the spec. Pure.

use kube::core::Status;
use stoker_kube::Tried;

/// What an API server said of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It would take it.
    Taken,
    /// It would not, because of what the object says.
    Refused(Vec<Fault>),
    /// It would not now, for a reason beside the object that may go: a quota, a namespace that is missing.
    NotNow(String),
    /// Nobody knows: the question itself failed.
    Unknown(String),
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Path in the object; empty when it is about the whole.
    pub(super) field: String,
    /// What is wrong, in the API server's words.
    pub(super) message: String,
}

/// How a structured merge says what it cannot read, before validation.
const UNTYPED: &str = "failed to create typed patch object";

/// What the answer means.
pub(super) fn verdict(tried: &Tried) -> Verdict {
    let Some(status) = &tried.refusal else {
        return Verdict::Taken;
    };
    let message = status.message.as_str();
    if message.contains(UNTYPED) {
        return Verdict::Refused(untyped(message));
    }
    let denied = message.contains("denied the request") || message.contains("denied request");
    match status.code {
        422 => Verdict::Refused(causes(status)),
        // Of a webhook or policy of the management cluster, which answer as they like.
        400..500 if denied => Verdict::Refused(whole(message)),
        400 if message.contains("dry run") => Verdict::Unknown(message.to_owned()),
        400 => Verdict::Refused(whole(message)),
        403 if message.contains("exceeded quota") || message.contains("being terminated") => {
            Verdict::NotNow(message.to_owned())
        }
        404 => Verdict::NotNow(message.to_owned()),
        _ => Verdict::Unknown(message.to_owned()),
    }
}

fn whole(message: &str) -> Vec<Fault> {
    vec![Fault {
        field: String::new(),
        message: message.to_owned(),
    }]
}

fn causes(status: &Status) -> Vec<Fault> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let faults: Vec<_> = causes
        .map(|cause| Fault {
            field: cause.field.clone(),
            message: cause.message.clone(),
        })
        .collect();
    if faults.is_empty() {
        whole(&status.message)
    } else {
        faults
    }
}

/// Of `failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.x: what is wrong`, or of several such
/// lines behind `errors:`.
fn untyped(message: &str) -> Vec<Fault> {
    let Some((_, said)) = message.split_once("): ") else {
        return whole(message);
    };
    said.trim_start_matches("errors:")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(": ") {
            Some((field, message)) if field.starts_with('.') => Fault {
                field: field.trim_start_matches('.').to_owned(),
                message: message.to_owned(),
            },
            _ => Fault {
                field: String::new(),
                message: line.to_owned(),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(code: u16, message: &str) -> Verdict {
        let status = json!({ "status": "Failure", "code": code, "message": message });
        let status: Status = serde_json::from_value(status).unwrap();
        verdict(&Tried {
            warnings: Vec::new(),
            refusal: Some(Box::new(status)),
        })
    }

    fn fault(field: &str, message: &str) -> Fault {
        Fault {
            field: field.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn only_what_the_object_says_refuses_a_spec() {
        for (code, message) in [
            (422, "Deployment.apps \"a\" is invalid"),
            (400, "unable to parse quantity's suffix"),
            (403, "admission webhook \"a.b\" denied the request: no"),
            (
                422,
                "ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no",
            ),
        ] {
            let expected = Verdict::Refused(whole(message));
            assert_eq!(of(code, message), expected, "{code} {message}");
        }
        for (code, message) in [
            (
                403,
                "deployments.apps \"a\" is forbidden: exceeded quota: few",
            ),
            (404, "namespaces \"a\" not found"),
            (
                403,
                "unable to create new content in namespace a because it is being terminated",
            ),
        ] {
            let expected = Verdict::NotNow(message.to_owned());
            assert_eq!(of(code, message), expected, "{code} {message}");
        }
        for (code, message) in [
            (403, "User \"a\" cannot patch resource \"deployments\""),
            (400, "admission webhook \"a.b\" does not support dry run"),
            (500, "failed calling webhook \"a.b\""),
            (409, "the object has been modified"),
            (503, "etcdserver: leader changed"),
        ] {
            let expected = Verdict::Unknown(message.to_owned());
            assert_eq!(of(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn what_cannot_be_merged_names_its_fields() {
        let one = "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"x\"]";
        let several = "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): errors:\n  .spec.a: one\n  .spec.b: two";
        let duplicate = "duplicate entries for key [name=\"x\"]";
        let expected = vec![fault("spec.template.spec.containers", duplicate)];
        assert_eq!(of(500, one), Verdict::Refused(expected));
        let expected = vec![fault("spec.a", "one"), fault("spec.b", "two")];
        assert_eq!(of(400, several), Verdict::Refused(expected));
    }
}
