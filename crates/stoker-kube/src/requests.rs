//! Counting the requests that we send, by verb and resource.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request};
use tower::{Layer, Service};

/// Is told of each request: its verb (as in RBAC, and `apply` for server-side apply) and its
/// resource. Both are from closed sets; a resource we do not know is `other`, a path that is no
/// resource is `none`.
pub type RequestCounter = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// The layer that counts.
#[derive(Clone)]
pub struct CountRequests {
    counter: RequestCounter,
}

impl CountRequests {
    /// Tells `counter` of every request that passes.
    #[must_use]
    pub fn new(counter: RequestCounter) -> Self {
        Self { counter }
    }
}

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            counter: Arc::clone(&self.counter),
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    counter: RequestCounter,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let (verb, resource) = verb_and_resource(&request);
        (self.counter)(verb, resource);
        self.inner.call(request)
    }
}

/// Plural names of everything that Stoker reads or writes.
const RESOURCES: &[&str] = &[
    "clusterrolebindings",
    "clusterroles",
    "configmaps",
    "csistoragecapacities",
    "customresourcedefinitions",
    "daemonsets",
    "datastores",
    "deployments",
    "endpoints",
    "endpointslices",
    "events",
    "ingresses",
    "kubeconfiggenerators",
    "leases",
    "namespaces",
    "networkpolicies",
    "nodes",
    "persistentvolumeclaims",
    "poddisruptionbudgets",
    "pods",
    "replicasets",
    "rolebindings",
    "roles",
    "runtimeclasses",
    "secrets",
    "serviceaccounts",
    "servicecidrs",
    "services",
    "tenantcontrolplanes",
    "tlsroutes",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// What a request does to which resource, by its method and path.
pub(crate) fn verb_and_resource<B>(request: &Request<B>) -> (&'static str, &'static str) {
    let mut path = request
        .uri()
        .path()
        .split('/')
        .filter(|part| !part.is_empty());
    let versioned = match path.next() {
        Some("api") => path.next().is_some(),
        Some("apis") => path.next().is_some() && path.next().is_some(),
        _ => false,
    };
    let mut parts: Vec<&str> = path.collect();
    if parts.first() == Some(&"namespaces")
        && parts.len() > 2
        && !matches!(parts[2..], ["status" | "finalize"])
    {
        parts.drain(..2);
    }
    let (true, Some(plural)) = (versioned, parts.first()) else {
        return (plain_verb(request.method()), "none");
    };
    let resource = RESOURCES
        .iter()
        .find(|known| *known == plural)
        .map_or("other", |known| *known);
    (verb(request, parts.len() > 1), resource)
}

fn verb<B>(request: &Request<B>, named: bool) -> &'static str {
    match *request.method() {
        Method::GET if named => "get",
        Method::GET if is_watch(request) => "watch",
        Method::GET => "list",
        Method::DELETE if !named => "deletecollection",
        Method::PATCH if is_apply(request) => "apply",
        ref method => plain_verb(method),
    }
}

/// Whether the answer is a stream of events.
pub(crate) fn is_watch<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let watches = |pair| matches!(pair, "watch=true" | "watch=1");
    *request.method() == Method::GET && query.split('&').any(watches)
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

fn is_apply<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> (&'static str, &'static str) {
        let kind = "application/apply-patch+yaml";
        let request = Request::builder().method(method).uri(uri);
        verb_and_resource(&request.header("content-type", kind).body(()).unwrap())
    }

    #[test]
    fn verbs_and_resources_come_from_the_path() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/secrets/b?", ("get", "secrets")),
            ("GET", "/api/v1/secrets?limit=5", ("list", "secrets")),
            ("GET", "/api/v1/secrets?&watch=true", ("watch", "secrets")),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/b",
                ("apply", "deployments"),
            ),
            (
                "PATCH",
                "/apis/stoker.dev/v1alpha1/datastores/b/status",
                ("apply", "datastores"),
            ),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/a/events",
                ("create", "events"),
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                ("update", "leases"),
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                ("deletecollection", "pods"),
            ),
            ("DELETE", "/api/v1/namespaces/a", ("delete", "namespaces")),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                ("update", "namespaces"),
            ),
            ("GET", "/apis/example.com/v1/widgets", ("list", "other")),
            ("GET", "/readyz", ("get", "none")),
            ("GET", "/apis", ("get", "none")),
        ] {
            assert_eq!(of(method, uri), expected, "{method} {uri}");
        }
    }

    #[test]
    fn the_names_of_resources_are_sorted_and_unique() {
        assert!(RESOURCES.is_sorted_by(|a, b| a < b));
    }
}
