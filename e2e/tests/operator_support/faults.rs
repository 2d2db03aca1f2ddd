//! A layer around the operator's clients that records every request about a tenant and makes chosen ones fail.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::json;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is asked for, apart from its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// As in RBAC; `apply` for server-side apply.
    pub(crate) verb: &'static str,
    /// Plural.
    pub(crate) resource: String,
    /// Empty when the path names no object.
    pub(crate) name: String,
    /// Empty, or as `status`.
    pub(crate) subresource: String,
    /// The how-manieth of its like about the same tenant, from 0.
    pub(crate) nth: usize,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }

    pub(crate) fn is(&self, verb: &str, resource: &str, subresource: &str) -> bool {
        self.verb == verb && self.resource == resource && self.subresource == subresource
    }

    /// Events are a courtesy: nothing may depend on them.
    pub(crate) fn is_event(&self) -> bool {
        self.resource == "events"
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            name,
            subresource,
            nth,
        } = self;
        write!(formatter, "{verb} {resource} {name} {subresource}#{nth}")
    }
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens: it is never sent.
    Refused,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// The API server answers with this code and does nothing.
    Status(u16),
    /// Whoever sends it panics before it is sent: a mistake of ours.
    Panics,
    /// The operator dies before it is sent: whoever sent it waits for ever.
    DiesBefore,
    /// The operator dies before the answer arrives.
    DiesAfter,
}

/// A request that was made.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) call: Call,
    /// When it was sent. Moments are counted over all requests.
    pub(crate) begun: u64,
    /// `None` while it is under way, or when it failed here.
    pub(crate) answered: Option<u64>,
}

#[derive(Debug)]
struct Fault {
    call: Call,
    failure: Failure,
    struck: bool,
}

#[derive(Default)]
struct State {
    moment: u64,
    last: Option<Instant>,
    sent: HashMap<String, Vec<Sent>>,
    faults: HashMap<String, Vec<Fault>>,
    aliases: BTreeMap<String, String>,
}

/// What is recorded and what shall fail, per tenant: its namespace.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// A client that goes through this layer.
    pub(crate) fn around(&self, client: Client) -> Client {
        let faults = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (faults, client) = (faults.clone(), client.clone());
            async move {
                let about = faults.subject(&request);
                faults.send(about, client, request).await
            }
        });
        Client::new(service, "default")
    }

    /// The same for a client towards a tenant's API server: every request is about `subject`, and its name has the
    /// namespace inside the tenant before it.
    pub(crate) fn around_tenant(&self, subject: &str, client: Client) -> Client {
        let (faults, subject) = (self.clone(), subject.to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (faults, client) = (faults.clone(), client.clone());
            let about = call(&request).filter(|(_, call)| call.verb != "watch");
            let about = about.map(|(namespace, call)| {
                let name = format!("{}/{}", namespace.unwrap_or_default(), call.name);
                (subject.clone(), Call { name, ..call })
            });
            async move { faults.send(about, client, request).await }
        });
        Client::new(service, "default")
    }

    /// The request `call` about the tenant in `namespace` shall fail.
    pub(crate) fn arm(&self, namespace: &str, call: Call, failure: Failure) {
        let fault = Fault {
            call,
            failure,
            struck: false,
        };
        let mut state = self.lock();
        state
            .faults
            .entry(namespace.to_owned())
            .or_default()
            .push(fault);
    }

    /// No request shall fail any more.
    pub(crate) fn disarm(&self) {
        self.lock().faults.clear();
    }

    /// Whether every request that shall fail was made.
    pub(crate) fn struck(&self, namespace: &str) -> bool {
        let state = self.lock();
        let faults = state.faults.get(namespace);
        faults.is_some_and(|faults| faults.iter().all(|fault| fault.struck))
    }

    /// Requests of which `name` is a part are about the tenant in `namespace`; they are recorded with `ID` in its place.
    pub(crate) fn alias(&self, name: &str, namespace: &str) {
        self.lock()
            .aliases
            .insert(name.to_owned(), namespace.to_owned());
    }

    /// What was sent about the tenant in `namespace`, in the order it was sent.
    pub(crate) fn sent(&self, namespace: &str) -> Vec<Sent> {
        self.lock().sent.get(namespace).cloned().unwrap_or_default()
    }

    /// Forgets what was sent.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().sent.remove(namespace);
    }

    /// Waits until nothing was sent for `quiet`.
    pub(crate) async fn quiet(&self, quiet: Duration) {
        loop {
            let last = self.lock().last;
            match last.map(|last| last.elapsed()) {
                Some(since) if since < quiet => {
                    tokio::time::sleep(quiet.saturating_sub(since)).await;
                }
                _ => return,
            }
        }
    }

    fn subject(&self, request: &Request<Body>) -> Option<(String, Call)> {
        let (namespace, call) = call(request).filter(|(_, call)| call.verb != "watch")?;
        let namespace = namespace?;
        let state = self.lock();
        for (alias, tenant) in &state.aliases {
            if call.name.contains(alias) {
                let name = call.name.replace(alias, "ID");
                return Some((tenant.clone(), Call { name, ..call }));
            }
        }
        Some((namespace, call))
    }

    async fn send(
        &self,
        about: Option<(String, Call)>,
        client: Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        let Some((namespace, call)) = about else {
            return client.send(request).await.map_err(Into::into);
        };
        let (index, failure) = self.begin(&namespace, call);
        match failure {
            Some(Failure::Refused) => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            Some(Failure::Status(code)) => Ok(refusal(code)),
            Some(Failure::Panics) => panic!("by a test"),
            Some(Failure::DiesBefore) => std::future::pending().await,
            Some(Failure::AnswerLost) => {
                let answer = client.send(request).await;
                answer.map_err(BoxError::from)?;
                Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
            }
            Some(Failure::DiesAfter) => {
                let _ = client.send(request).await;
                std::future::pending().await
            }
            None => {
                let answer = client.send(request).await;
                self.end(&namespace, index);
                answer.map_err(Into::into)
            }
        }
    }

    fn begin(&self, namespace: &str, mut call: Call) -> (usize, Option<Failure>) {
        let mut state = self.lock();
        state.moment += 1;
        state.last = Some(Instant::now());
        let moment = state.moment;
        let sent = state.sent.entry(namespace.to_owned()).or_default();
        let alike = |sent: &&Sent| {
            Call {
                nth: 0,
                ..sent.call.clone()
            } == call
        };
        call.nth = sent.iter().filter(alike).count();
        sent.push(Sent {
            call: call.clone(),
            begun: moment,
            answered: None,
        });
        let index = sent.len() - 1;
        let faults = state.faults.get_mut(namespace).into_iter().flatten();
        let fault = faults
            .into_iter()
            .find(|fault| !fault.struck && fault.call == call);
        let failure = fault.map(|fault| {
            fault.struck = true;
            fault.failure
        });
        (index, failure)
    }

    fn end(&self, namespace: &str, index: usize) {
        let mut state = self.lock();
        state.moment += 1;
        state.last = Some(Instant::now());
        let moment = state.moment;
        if let Some(sent) = state
            .sent
            .get_mut(namespace)
            .and_then(|all| all.get_mut(index))
        {
            sent.answered = Some(moment);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "refused by the test", "reason": reason, "code": code,
    });
    let body = Body::from(status.to_string().into_bytes());
    Response::builder().status(code).body(body).unwrap()
}

/// The namespace and what is asked for, of a request for a resource.
fn call(request: &Request<Body>) -> Option<(Option<String>, Call)> {
    let mut parts: Vec<&str> = request
        .uri()
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    match parts.first() {
        Some(&"api") if parts.len() > 2 => parts.drain(..2),
        Some(&"apis") if parts.len() > 3 => parts.drain(..3),
        _ => return None,
    };
    let namespace = (parts[0] == "namespaces" && parts.len() > 2).then(|| {
        let name = parts[1].to_owned();
        parts.drain(..2);
        name
    });
    let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
    let (resource, name, subresource) = (part(0), part(1), part(2));
    let watches = request.uri().query().unwrap_or_default().contains("watch=");
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let applies = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let verb = match *request.method() {
        Method::GET if !name.is_empty() => "get",
        Method::GET if watches => "watch",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if applies => "apply",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "other",
    };
    let call = Call {
        verb,
        resource,
        name,
        subresource,
        nth: 0,
    };
    Some((namespace, call))
}

/// Those that write.
pub(crate) fn writes(sent: &[Sent]) -> impl Iterator<Item = &Sent> {
    sent.iter().filter(|sent| sent.call.is_write())
}

/// The only request of its kind.
pub(crate) fn only<'a>(
    sent: &'a [Sent],
    verb: &str,
    resource: &str,
    subresource: &str,
) -> &'a Sent {
    let mut found = sent
        .iter()
        .filter(|sent| sent.call.is(verb, resource, subresource));
    let first = found.next();
    let first = first.unwrap_or_else(|| panic!("no {verb} of {resource} {subresource}"));
    assert!(
        found.next().is_none(),
        "more than one {verb} of {resource} {subresource}"
    );
    first
}
