//! Counting the requests that we send, by verb and resource, and the answers that refuse them.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use tower::{Layer, Service};

/// Is told of each request when it is sent, and once more when it is refused or fails: its verb (as in RBAC, and `apply`
/// for server-side apply) and its resource. Both are from closed sets; a resource we do not know is `other`, a path that
/// is no resource is `none`.
pub type RequestCounter = Arc<dyn Fn(&'static str, &'static str, Exchange) + Send + Sync>;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// It goes out.
    Sent,
    /// The API server answered with this status of 400 and above.
    Refused(u16),
    /// There was no answer.
    Failed,
}

impl Exchange {
    /// What an answer means, if it is not the one hoped for.
    pub(crate) fn of<A, E>(answer: &Result<Response<A>, E>) -> Option<Self> {
        match answer {
            Ok(answer) if answer.status().as_u16() < 400 => None,
            Ok(answer) => Some(Self::Refused(answer.status().as_u16())),
            Err(_) => Some(Self::Failed),
        }
    }
}

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

impl<S, B, A> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<A>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = verb_and_resource(&request);
        let counter = Arc::clone(&self.counter);
        counter(verb, resource, Exchange::Sent);
        let answered = self.inner.call(request).inspect(move |answer| {
            if let Some(exchange) = Exchange::of(answer) {
                counter(verb, resource, exchange);
            }
        });
        answered.boxed()
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
    "jointokens",
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

    #[tokio::test]
    async fn a_refusal_is_told_beside_the_request() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = told.clone();
        let counter: RequestCounter = Arc::new(move |verb, resource, exchange| {
            seen.lock().unwrap().push((verb, resource, exchange));
        });
        let answer = |request: Request<u16>| async move {
            match *request.body() {
                0 => Err("away"),
                status => Ok(Response::builder().status(status).body(()).unwrap()),
            }
        };
        let mut service = CountRequests::new(counter).layer(tower::service_fn(answer));
        for status in [200, 409, 0] {
            let request = Request::get("/api/v1/secrets").body(status).unwrap();
            let _ = service.call(request).await;
        }
        let sent = ("list", "secrets", Exchange::Sent);
        let of = |exchange| ("list", "secrets", exchange);
        let expected = [
            sent,
            sent,
            of(Exchange::Refused(409)),
            sent,
            of(Exchange::Failed),
        ];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn the_names_of_resources_are_sorted_and_unique() {
        assert!(RESOURCES.is_sorted_by(|a, b| a < b));
    }
}
