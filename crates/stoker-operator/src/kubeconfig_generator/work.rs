//! The two loops.

use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::applier;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use stoker_api::v1alpha1::{KubeconfigGenerator, TenantControlPlane};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::Instrument;

use super::reconcile::{self, Error};
use super::state::Woken;
use super::tenant;
use crate::contained::contained;
use crate::context::Context;
use crate::metrics::Controller;

/// Works once all generators are known: what none of them asks for is removed. Until the kind is installed it waits, and
/// nothing else does.
pub async fn work(ctx: Arc<Context>, woken: Woken) {
    if ctx.kubeconfigs.generators.wait_until_ready().await.is_err() {
        // The watch that fills the cache is gone: the process ends.
        return;
    }
    let tenants = tenants_loop(ctx.clone(), woken.tenants);
    let generators = generators_loop(ctx, woken.generators);
    tokio::join!(tenants, generators);
}

async fn tenants_loop(
    ctx: Arc<Context>,
    woken: tokio::sync::mpsc::UnboundedReceiver<ObjectRef<TenantControlPlane>>,
) {
    let config = controller::Config::default().concurrency(4);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<_, std::convert::Infallible>);
    let reconcile = |object: Arc<TenantControlPlane>, ctx: Arc<Context>| {
        let span = tracing::info_span!(
            "kubeconfigs",
            namespace = object.namespace().unwrap_or_default(),
            tenant = object.name_any(),
        );
        Box::pin(contained(tenant::reconcile(object, ctx)).instrument(span))
    };
    let failed = |object: Arc<TenantControlPlane>, error: &Error, ctx: Arc<Context>| {
        ctx.metrics
            .failed(Controller::Kubeconfigs, error.category());
        let failures = &ctx.kubeconfigs.tenant_failures;
        let wait = failures.after_failure(ObjectRef::from_obj(object.as_ref()));
        tracing::warn!(
            namespace = object.namespace().unwrap_or_default(),
            tenant = object.name_any(),
            error = %error,
            retry_in = ?wait,
            "pass failed",
        );
        Action::requeue(wait)
    };
    let tenants = ctx.stores.tenants.clone();
    applier(reconcile, failed, ctx, tenants, queue, config)
        .for_each(async |_| {})
        .await;
}

async fn generators_loop(
    ctx: Arc<Context>,
    woken: tokio::sync::mpsc::UnboundedReceiver<ObjectRef<KubeconfigGenerator>>,
) {
    let config = controller::Config::default().concurrency(2);
    let queue = UnboundedReceiverStream::new(woken).map(Ok::<_, std::convert::Infallible>);
    let reconcile = |object: Arc<KubeconfigGenerator>, ctx: Arc<Context>| {
        let span = tracing::info_span!("kubeconfig_generator", generator = object.name_any());
        Box::pin(contained(reconcile::reconcile(object, ctx)).instrument(span))
    };
    let failed = |object: Arc<KubeconfigGenerator>, error: &Error, ctx: Arc<Context>| {
        ctx.metrics
            .failed(Controller::KubeconfigGenerator, error.category());
        let failures = &ctx.kubeconfigs.generator_failures;
        let wait = failures.after_failure(ObjectRef::from_obj(object.as_ref()));
        tracing::warn!(generator = object.name_any(), error = %error, retry_in = ?wait, "pass failed");
        Action::requeue(wait)
    };
    let generators = ctx.kubeconfigs.generators.clone();
    applier(reconcile, failed, ctx, generators, queue, config)
        .for_each(async |_| {})
        .await;
}
