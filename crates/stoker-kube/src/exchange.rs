//! One request and its answer.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::Connect;
use kube::client::Body;
use tokio::time::timeout;
use tower::BoxError;

use crate::requests::is_watch;

/// How much is taken of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A whole exchange; of a watch only until its answer begins.
    pub(crate) time: Duration,
    /// Largest answer, bytes.
    pub(crate) answer: usize,
}

/// A watch is handed on as it arrives; any other answer is read whole within the time.
pub(crate) async fn exchange<C>(
    http: HttpClient<C, Body>,
    request: Request<Body>,
    limits: Limits,
) -> Result<Response<Either<Full<Bytes>, Incoming>>, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let watches = is_watch(&request);
    let whole = async {
        let (head, body) = http.request(request).await?.into_parts();
        if watches && head.status.is_success() {
            return Ok(Response::from_parts(head, Either::Right(body)));
        }
        let bytes = Limited::new(body, limits.answer)
            .collect()
            .await?
            .to_bytes();
        Ok(Response::from_parts(head, Either::Left(Full::new(bytes))))
    };
    timeout(limits.time, whole).await?
}
