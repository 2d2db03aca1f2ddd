//! What can go wrong between us and an API server, named after what we were doing.

use std::error::Error as StdError;
use std::io;

use crate::desired::ObjectKey;

/// A failed action. The message says what was attempted; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Server-side apply of an object failed.
    #[error("could not apply {key}")]
    Apply {
        /// The object.
        key: ObjectKey,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Others keep writing an object while our writes of it are on their way.
    #[error("others write {key} at the same time; it is tried again")]
    Overtaken {
        /// The object.
        key: ObjectKey,
    },
    /// Deleting an object failed for another reason than its absence.
    #[error("could not delete {key}")]
    Delete {
        /// The object.
        key: ObjectKey,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Listing the objects of a kind failed.
    #[error("could not list {kind}")]
    List {
        /// The kind, as in `ConfigMap`.
        kind: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A watch broke; it is opened again with backoff.
    #[error("the watch of {kind} broke")]
    Watch {
        /// The kind, as in `ConfigMap`.
        kind: String,
        /// What the watcher said.
        #[source]
        source: Box<kube::runtime::watcher::Error>,
    },
    /// The status of an object could not be written.
    #[error("could not write the status of {object}")]
    WriteStatus {
        /// The object, as `Kind namespace/name`.
        object: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object or status of ours does not turn into JSON.
    #[error("could not write {what} as JSON")]
    Serialize {
        /// The object, as `Kind namespace/name`.
        what: String,
        /// What serde said.
        #[source]
        source: serde_json::Error,
    },
    /// An event could not be recorded.
    #[error("could not record the event {reason}")]
    RecordEvent {
        /// The event's reason.
        reason: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The leader lease could not be read.
    #[error("could not read the lease {lease}")]
    ReadLease {
        /// The lease, as `namespace/name`.
        lease: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The leader lease could not be written.
    #[error("could not write the lease {lease}")]
    WriteLease {
        /// The lease, as `namespace/name`.
        lease: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server's readiness could not be asked.
    #[error("could not ask the API server whether it is ready")]
    AskReadiness {
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A certificate signing request could not be read or answered.
    #[error("could not read or answer the certificate signing request {name}")]
    SigningRequest {
        /// Name of the object.
        name: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A node could not be read or written.
    #[error("could not read or write the node {name}")]
    Node {
        /// Name of the object.
        name: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
    /// No client could be made from the configuration given.
    #[error("could not make a client from the configuration")]
    MakeClient {
        /// What was wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
    /// No client could be made for a tenant's API server: its name or its PEM texts are unusable.
    #[error("could not make a client for the tenant: {what} is unusable")]
    MakeTenantClient {
        /// Which input: `CA certificate`, `client key`, …
        what: &'static str,
        /// What was wrong with it.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// The kind of failure in `CamelCase`, from a closed set: for metric labels and conditions.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Apply { source, .. }
            | Self::Delete { source, .. }
            | Self::List { source, .. }
            | Self::WriteStatus { source, .. }
            | Self::RecordEvent { source, .. }
            | Self::ReadLease { source, .. }
            | Self::WriteLease { source, .. }
            | Self::AskReadiness { source }
            | Self::SigningRequest { source, .. }
            | Self::Node { source, .. }
            | Self::MakeClient { source } => category_of(source),
            Self::Watch { source, .. } => watch_category(source),
            Self::Overtaken { .. } => "Conflict",
            Self::Serialize { .. } => "Unserializable",
            Self::MakeTenantClient { .. } => "InvalidCredentials",
        }
    }

    /// Whether the same request may well succeed later with nobody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.category(),
            "Unreachable"
                | "ConnectionRefused"
                | "Timeout"
                | "TooManyRequests"
                | "Unavailable"
                | "InternalError"
                | "Conflict"
                | "Expired"
        )
    }

    /// Whether the object, or the namespace it should go into, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.category() == "NotFound"
    }

    /// The object this is about, where it is about one of those that we apply.
    #[must_use]
    pub fn key(&self) -> Option<&ObjectKey> {
        match self {
            Self::Apply { key, .. } | Self::Overtaken { key } | Self::Delete { key, .. } => {
                Some(key)
            }
            _ => None,
        }
    }
}

/// The category of a client error, as [`Error::category`] gives it.
#[must_use]
pub fn category_of(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => status_category(status),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => "InvalidResponse",
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => "BadRequest",
        kube::Error::InferConfig(_)
        | kube::Error::InferKubeconfig(_)
        | kube::Error::RustlsTls(_)
        | kube::Error::Auth(_) => "InvalidCredentials",
        other => connection_category(other),
    }
}

fn watch_category(error: &kube::runtime::watcher::Error) -> &'static str {
    use kube::runtime::watcher::Error as Watch;
    match error {
        Watch::InitialListFailed(e) | Watch::WatchStartFailed(e) | Watch::WatchFailed(e) => {
            category_of(e)
        }
        Watch::WatchError(status) => status_category(status),
        Watch::NoResourceVersion => "InvalidResponse",
    }
}

fn status_category(status: &kube::core::Status) -> &'static str {
    let terminating = |cause: &kube::core::response::StatusCause| {
        cause.reason == "NamespaceTerminating" || cause.message.contains("is being terminated")
    };
    if status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(terminating))
    {
        return "NamespaceTerminating";
    }
    match (status.reason.as_str(), status.code) {
        ("Unauthorized", _) | (_, 401) => "Unauthorized",
        ("Forbidden", _) | (_, 403) => "Forbidden",
        ("NotFound", _) | (_, 404) => "NotFound",
        ("AlreadyExists", _) => "AlreadyExists",
        ("Conflict", _) | (_, 409) => "Conflict",
        ("Gone" | "Expired", _) | (_, 410) => "Expired",
        ("Invalid", _) | (_, 422) => "Invalid",
        ("BadRequest", _) | (_, 400) => "BadRequest",
        ("TooManyRequests", _) | (_, 429) => "TooManyRequests",
        ("Timeout" | "ServerTimeout", _) | (_, 504) => "Timeout",
        ("ServiceUnavailable", _) | (_, 502 | 503) => "Unavailable",
        ("InternalError", _) | (_, 500) => "InternalError",
        _ => "Refused",
    }
}

/// Looks through the chain of causes for the one that a person would name.
fn connection_category(error: &(dyn StdError + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<tokio::time::error::Elapsed>() {
            return "Timeout";
        }
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>()
            && hyper.is_timeout()
        {
            return "Timeout";
        }
        if cause.is::<rustls::Error>() {
            return "TlsFailed";
        }
        next = match cause.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::TimedOut => return "Timeout",
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                return "ConnectionRefused";
            }
            // Not `source()`: an io::Error skips the error that it wraps.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    "Unreachable"
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(reason: &str, code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", reason).with_code(code).boxed())
    }

    #[test]
    fn an_api_status_has_the_category_of_its_reason() {
        for (reason, code, category) in [
            ("Forbidden", 403, "Forbidden"),
            ("Conflict", 409, "Conflict"),
            ("Invalid", 422, "Invalid"),
            ("NotFound", 404, "NotFound"),
            ("TooManyRequests", 429, "TooManyRequests"),
            ("", 503, "Unavailable"),
            ("Teapot", 418, "Refused"),
        ] {
            assert_eq!(category_of(&api(reason, code)), category, "{reason} {code}");
        }
    }

    #[test]
    fn a_namespace_on_its_way_out_is_told_from_missing_rights() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "reason": "Forbidden",
            "code": 403,
            "details": {"causes": [{
                "reason": "NamespaceTerminating",
                "message": "namespace a is being terminated",
                "field": "metadata.namespace",
            }]},
        }))
        .unwrap();
        assert_eq!(
            category_of(&kube::Error::Api(status.boxed())),
            "NamespaceTerminating"
        );
    }

    #[test]
    fn broken_connections_are_unreachable_and_late_ones_time_out() {
        let refused =
            kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(category_of(&refused), "ConnectionRefused");
        let reset = kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(category_of(&reset), "Unreachable");
        let late = kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::TimedOut)));
        assert_eq!(category_of(&late), "Timeout");
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let tls = kube::Error::Service(Box::new(io::Error::other(tls)));
        assert_eq!(category_of(&tls), "TlsFailed");
    }

    #[test]
    fn only_failures_that_pass_by_themselves_are_transient() {
        let transient = |reason, code| {
            Error::AskReadiness {
                source: Box::new(api(reason, code)),
            }
            .is_transient()
        };
        assert!(transient("TooManyRequests", 429));
        assert!(transient("", 503));
        assert!(!transient("Forbidden", 403));
        assert!(!transient("Invalid", 422));
    }
}
