//! The loop.

use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::applier;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use stoker_api::v1alpha1::JoinToken;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::Instrument;

use super::reconcile::{self, Error};
use crate::contained::contained;
use crate::context::Context;
use crate::metrics::Controller;

/// Tokens looked at at the same time: a tenant that hangs holds one for seconds.
const PASSES: u16 = 16;

/// Works once all tokens are known. Until the kind is installed it waits, and nothing else does.
pub async fn work(ctx: Arc<Context>, woken: UnboundedReceiver<ObjectRef<JoinToken>>) {
    if ctx.join_tokens.tokens.wait_until_ready().await.is_err() {
        // The watch that fills the cache is gone: the process ends.
        return;
    }
    let config = controller::Config::default().concurrency(PASSES);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<_, std::convert::Infallible>);
    let reconcile = |object: Arc<JoinToken>, ctx: Arc<Context>| {
        let span = tracing::info_span!(
            "join_token",
            namespace = object.namespace().unwrap_or_default(),
            token = object.name_any(),
        );
        Box::pin(contained(reconcile::reconcile(object, ctx)).instrument(span))
    };
    let failed = |object: Arc<JoinToken>, error: &Error, ctx: Arc<Context>| {
        ctx.metrics.failed(Controller::JoinToken, error.category());
        let failures = &ctx.join_tokens.failures;
        let wait = failures.after_failure(ObjectRef::from_obj(object.as_ref()));
        tracing::warn!(
            namespace = object.namespace().unwrap_or_default(),
            token = object.name_any(),
            error = %error,
            retry_in = ?wait,
            "pass failed",
        );
        Action::requeue(wait)
    };
    let tokens = ctx.join_tokens.tokens.clone();
    applier(reconcile, failed, ctx, tokens, queue, config)
        .for_each(async |_| {})
        .await;
}
