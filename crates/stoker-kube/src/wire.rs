//! One HTTP/2 connection, made when it is first needed and again after it broke.
//!
//! A general client has a task for the queue of a connection and one for every answer, and channels between them and the
//! connection's own: at a birth, where each of them finds cold caches, that is a good part of what a request costs. Here
//! whoever makes a request hands it to the connection himself, and reads the answer from it.

mod cork;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{Either, select};
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use kube::client::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tower::BoxError;

use self::cork::Cork;

/// Makes a connection that is ready for HTTP/2.
pub(crate) trait Dial: Send + Sync {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes one.
    fn dial(&self) -> impl Future<Output = Result<Self::Io, BoxError>> + Send;
}

/// How a connection is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// Bytes that a peer may send unread: of one answer, and in all.
    pub(crate) windows: (u32, u32),
    /// Between two pings.
    pub(crate) ping_interval: Duration,
    /// A peer that has not answered a ping for so long is gone.
    pub(crate) ping_timeout: Duration,
}

/// A way to one peer.
pub(crate) struct Wire<D> {
    dial: D,
    keeping: Keeping,
    /// The connection last made. Locked while one is made: whoever comes meanwhile gets the same.
    open: Mutex<Option<SendRequest<Bytes>>>,
}

impl<D: Dial> Wire<D> {
    /// Makes no connection yet.
    pub(crate) fn new(dial: D, keeping: Keeping) -> Self {
        Self {
            dial,
            keeping,
            open: Mutex::default(),
        }
    }

    /// A connection on which a request may be made.
    ///
    /// # Errors
    /// None can be made.
    pub(crate) async fn open(&self) -> Result<Opened, BoxError> {
        let mut open = self.open.lock().await;
        if let Some(known) = open.clone()
            && let Ok(ready) = known.ready().await
        {
            return Ok(Opened(ready));
        }
        // Boxed: a handshake's state is large, and moved about with every request that might have to make one.
        let fresh = Box::pin(self.connect()).await?;
        *open = Some(fresh.clone());
        Ok(Opened(fresh.ready().await?))
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, BoxError> {
        let (stream, all) = self.keeping.windows;
        let cork = Cork::new(self.dial.dial().await?);
        let (sender, mut connection) = Builder::new()
            .initial_window_size(stream)
            .initial_connection_window_size(all)
            .enable_push(false)
            .handshake(cork.clone())
            .await?;
        let silent = connection
            .ping_pong()
            .map(|pings| Box::pin(silence(pings, self.keeping)));
        // Whatever was made ready to be sent leaves in one piece.
        let connection = poll_fn(move |context| {
            let ended = Pin::new(&mut connection).poll(context);
            let written = cork.pull(context);
            match (ended, written) {
                (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(BoxError::from)),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
                (Poll::Pending, _) => Poll::Pending,
            }
        });
        tokio::spawn(async move {
            match silent {
                // Dropped with the connection, its streams break.
                Some(silent) => match select(connection, silent).await {
                    Either::Left((ended, _)) => note(ended),
                    Either::Right(((), _)) => tracing::debug!("peer fell silent"),
                },
                None => note(connection.await),
            }
        });
        Ok(sender)
    }
}

fn note(ended: Result<(), BoxError>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, "connection ended");
    }
}

/// Ends when the peer does not answer a ping in time.
async fn silence(mut pings: PingPong, keeping: Keeping) {
    loop {
        sleep(keeping.ping_interval).await;
        let answer = timeout(keeping.ping_timeout, pings.ping(Ping::opaque()));
        if !matches!(answer.await, Ok(Ok(_))) {
            return;
        }
    }
}

/// A connection that has room for a request.
pub(crate) struct Opened(SendRequest<Bytes>);

impl Opened {
    /// Sends a request, whose URI must be whole, and waits for the head of its answer. Nothing is sent twice.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn send(
        mut self,
        request: Request<Body>,
    ) -> Result<Response<Arriving>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let head = Request::from_parts(head, ());
        let (answer, mut stream) = self.0.send_request(head, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        Ok(answer.await?.map(Arriving))
    }
}

/// The body of an answer.
pub(crate) struct Arriving(RecvStream);

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Poll::Ready(match ready!(self.0.poll_data(context)) {
            Some(Ok(part)) => {
                // What was read makes room for more.
                Some(
                    self.0
                        .flow_control()
                        .release_capacity(part.len())
                        .map(|()| Frame::data(part)),
                )
            }
            // It wanted no more of the request, and has said everything.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => None,
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }
}

#[cfg(test)]
mod tests;
