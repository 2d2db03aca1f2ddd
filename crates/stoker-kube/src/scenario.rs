//! For tests: an API server that answers one request at a time as the test says.

use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_test::mock::{self, Handle, SendResponse};

/// How long a test waits for a request that it expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The other end of a client.
pub(crate) struct Scenario(Handle<Request<Body>, Response<Body>>);

/// A request that waits for its answer.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: String,
    pub(crate) body: Value,
    /// The header `Accept`.
    pub(crate) accept: String,
    answer: SendResponse<Response<Body>>,
}

impl Scenario {
    pub(crate) fn new() -> (Client, Self) {
        let (service, handle) = mock::pair();
        (Client::new(service, "default"), Self(handle))
    }

    /// The next request; `None` when all clients are gone.
    pub(crate) async fn next(&mut self) -> Option<Call> {
        let (request, answer) = self.0.next_request().await?;
        let (head, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        Some(Call {
            method: head.method,
            uri: head.uri.to_string(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            accept: head
                .headers
                .get("accept")
                .map_or_else(String::new, |kinds| kinds.to_str().unwrap().to_owned()),
            answer,
        })
    }

    /// The next request, which must be this one and come soon.
    pub(crate) async fn expect(&mut self, method: &str, path: &str) -> Call {
        let call = timeout(PATIENCE, self.next()).await;
        let call = call.unwrap_or_else(|_| panic!("no {method} {path}"));
        let call = call.expect("a request");
        let seen = call.uri.split('?').next().unwrap();
        assert_eq!((call.method.as_str(), seen), (method, path));
        call
    }
}

impl Call {
    pub(crate) fn answer(self, code: u16, body: &Value) {
        let body = Body::from(serde_json::to_vec(body).unwrap());
        let response = Response::builder().status(code).body(body).unwrap();
        self.answer.send_response(response);
    }

    /// Answers with success and this text.
    pub(crate) fn answer_text(self, text: &str) {
        let body = Body::from(text.as_bytes().to_vec());
        self.answer.send_response(Response::new(body));
    }

    /// Answers with a `Status`.
    pub(crate) fn refuse(self, code: u16, reason: &str, message: &str) {
        self.answer(
            code,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": message, "reason": reason, "code": code,
            }),
        );
    }

    /// Answers with what was sent, as stored under this uid and version.
    pub(crate) fn store(self, uid: &str, version: u64) {
        let mut stored = self.body.clone();
        stored["metadata"]["uid"] = uid.into();
        stored["metadata"]["resourceVersion"] = version.to_string().into();
        stored["metadata"]["managedFields"] = json!([{"manager": "x"}]);
        self.answer(200, &stored);
    }

    pub(crate) fn break_off(self) {
        self.answer
            .send_error(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    }
}
