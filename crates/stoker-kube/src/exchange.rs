//! One request and its answer.

use std::time::Duration;

use http::Response;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body as HttpBody, Bytes};
use tokio::time::timeout;
use tower::BoxError;

/// How much is taken of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A whole exchange; of a watch only until its answer begins.
    pub(crate) time: Duration,
    /// Largest answer, bytes.
    pub(crate) answer: usize,
}

/// A watch is handed on as it arrives; any other answer is read whole within the time.
pub(crate) async fn exchange<B>(
    watches: bool,
    answered: impl Future<Output = Result<Response<B>, BoxError>>,
    limits: Limits,
) -> Result<Response<Either<Full<Bytes>, B>>, BoxError>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    let whole = async {
        let (head, body) = answered.await?.into_parts();
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
