//! What is done for a tenant beside the passes over it: waiting for its API server, watching, answering its kubelets.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use stoker_api::v1alpha1::TenantControlPlane;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::contained::{Panicked, caught};
use crate::context::Context;
use crate::metrics::Controller;

/// Until a task that panicked begins again; it doubles. Whoever owns a tenant could have it panic each time.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_mins(5);

/// A task that ends with its owner. What it reads is a tenant's, and a mistake of ours that shows there may cost that
/// tenant a while, but neither the others anything nor the tenant the task for good.
pub struct Task(JoinHandle<()>);

impl Task {
    /// Does what `begin` begins, and should that panic, begins it again.
    pub(super) fn spawn<F>(
        what: &'static str,
        tenant: &ObjectRef<TenantControlPlane>,
        ctx: &Arc<Context>,
        mut begin: impl FnMut(ObjectRef<TenantControlPlane>, Arc<Context>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tenant, ctx) = (tenant.clone(), Arc::clone(ctx));
        Self(tokio::spawn(async move {
            let mut pause = AGAIN;
            while let Err(panicked) = caught(begin(tenant.clone(), Arc::clone(&ctx))).await {
                ctx.metrics.failed(Controller::Tenant, Panicked::CATEGORY);
                tracing::error!(tenant = %tenant, task = what, error = %panicked, retry_in = ?pause, "task panicked");
                sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AT_MOST);
            }
        }))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;
    use crate::tenant::state::lock;
    use crate::watches::tests::operator;

    type Begun = Arc<Mutex<Vec<u64>>>;

    /// A task that panics so often, and when it was begun, in seconds.
    fn panics(times: usize, ctx: &Arc<Context>) -> (Task, Begun) {
        let (start, begun) = (Instant::now(), Begun::default());
        let seen = Arc::clone(&begun);
        let work = move |_, _| {
            lock(&begun).push(start.elapsed().as_secs());
            let panics = lock(&begun).len() <= times;
            async move { assert!(!panics, "by a test") }
        };
        let tenant = ObjectRef::new("one").within("a");
        (Task::spawn("a test", &tenant, ctx, work), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_panics_begins_again_later_and_later_and_one_that_ends_or_has_no_owner_never()
    {
        let (parts, _server) = operator(&[]);
        let (_task, begun) = panics(3, &parts.ctx);
        let (task, forsaken) = panics(3, &parts.ctx);
        sleep(AGAIN / 2).await;
        drop(task);
        sleep(AGAIN_AT_MOST * 2).await;
        assert_eq!(*lock(&begun), [0, 1, 3, 7]);
        assert_eq!(*lock(&forsaken), [0]);
        let said = parts.ctx.metrics.render().unwrap();
        let counted = r#"stoker_reconcile_failures_total{controller="Tenant",reason="Internal"} 4"#;
        assert!(said.contains(counted), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_panics_for_ever_is_begun_every_five_minutes() {
        let (parts, _server) = operator(&[]);
        let (_task, begun) = panics(usize::MAX, &parts.ctx);
        sleep(Duration::from_hours(24)).await;
        let begun = lock(&begun);
        assert_eq!(begun[begun.len() - 1] - begun[begun.len() - 2], 300);
    }
}
