//! Attending to the machines that join a tenant: their requests are answered, and their Nodes get what the token gives.
//!
//! One task per connection into a tenant. While the tenant has no tokens it sleeps; while it has some it watches the names
//! of requests, reads what is asked, and looks for the Nodes of those that were let in.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use stoker_api::v1alpha1::{JoinToken, JoinTokenStatus, JoinedNode, TenantControlPlane};
use stoker_kube::{Answer, Change, KUBELET_CLIENT, KubeletRequest, OwnedWatch};
use tokio::time::{Instant, sleep_until, timeout};

use super::decision::{Decision, asked, decide, is_latest, is_new, of_id};
use super::nodes::{equip, lacks, make_room};
use super::reconcile::Error;
use super::requests::{BATCH, Requests};
use super::state::Connection;
use super::status;
use crate::context::Context;

/// [`KUBELET_CLIENT`].
const SELECTED: &str = "spec.signerName=kubernetes.io/kube-apiserver-client-kubelet";
/// Until what is not done yet is looked at again; it doubles.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_AT_MOST: Duration = Duration::from_secs(2);
/// The same of a machine that has not come when it should have, for a day.
const LATE: Duration = Duration::from_secs(30);
const GIVEN_UP: SignedDuration = SignedDuration::from_hours(24);
/// One look. A tenant whose API hangs is looked at again.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two events of one tenant: whoever is refused may ask every second.
const TELL: Duration = Duration::from_mins(1);

/// A connection that is attended to.
struct Attendance {
    client: Client,
    tenant: ObjectRef<TenantControlPlane>,
    ctx: Arc<Context>,
    connection: Connection,
    requests: Requests,
    due: Option<Instant>,
    pause: Duration,
    told: Option<Instant>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let tokens = &self.ctx.join_tokens;
        tokens.disconnect(&self.tenant, &self.connection);
    }
}

/// Attends to the machines that join `tenant`, until dropped.
pub(crate) async fn follow(
    client: Client,
    tenant: ObjectRef<TenantControlPlane>,
    ctx: Arc<Context>,
) {
    let connection = ctx.join_tokens.connect(&tenant, &client);
    let mut attendance = Attendance {
        client,
        tenant,
        ctx,
        connection,
        requests: Requests::default(),
        due: None,
        pause: AGAIN,
        told: None,
    };
    loop {
        if attendance.tokens().is_empty() {
            attendance.connection.changed.notified().await;
        } else {
            Box::pin(attendance.attend()).await;
        }
    }
}

impl Attendance {
    fn tokens(&self) -> Vec<Arc<JoinToken>> {
        self.ctx.join_tokens.of(&self.tenant)
    }

    /// Until there is no token left.
    async fn attend(&mut self) {
        let watch = OwnedWatch::signing_requests(SELECTED);
        let mut changes = pin!(stoker_kube::watch_owned(self.client.clone(), watch));
        let tokens_changed = Arc::clone(&self.connection.changed);
        self.soon(Duration::ZERO);
        loop {
            let due = self.due;
            let at = due.unwrap_or_else(Instant::now);
            tokio::select! {
                // More wait in the watch.
                change = changes.next(), if !self.requests.is_full() => match change {
                    Some(Ok(change)) => self.note(&change),
                    Some(Err(error)) => {
                        tracing::debug!(tenant = %self.tenant, error = %error, "watch broken, resuming");
                    }
                    None => return,
                },
                () = tokens_changed.notified() => {
                    if self.tokens().is_empty() {
                        return;
                    }
                    self.soon(BATCH);
                }
                () = sleep_until(at), if due.is_some() => self.look().await,
            }
        }
    }

    fn note(&mut self, change: &Change) {
        if let Some(delay) = self.requests.note(change, Instant::now().into_std()) {
            self.soon(delay);
        }
    }

    fn soon(&mut self, delay: Duration) {
        self.pause = AGAIN;
        let soon = Instant::now() + delay;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    async fn look(&mut self) {
        let looked = timeout(LIMIT, async {
            self.answer_all().await;
            self.equip_all().await
        });
        let pause = match looked.await {
            Ok(Ok(pause)) => pause,
            Ok(Err(error)) => {
                tracing::debug!(tenant = %self.tenant, error = %error, "machines that join not looked at");
                Some(self.pause)
            }
            Err(_) => Some(LATE),
        };
        let waits = (!self.requests.is_empty()).then_some(self.pause);
        self.due = pause
            .into_iter()
            .chain(waits)
            .min()
            .map(|pause| Instant::now() + pause);
        self.pause = (self.pause * 2).min(AGAIN_AT_MOST);
    }

    async fn answer_all(&mut self) {
        for name in self.requests.names() {
            let request = stoker_kube::kubelet_request(&self.client, &name, KUBELET_CLIENT).await;
            let answered = match request {
                Ok(Some(request)) => self.answer(&request).await,
                // Answered, or gone.
                Ok(None) => Ok(()),
                Err(error) => Err(Error::Inside(error)),
            };
            match answered {
                Ok(()) => self.requests.settle(&name),
                // It waits, and holds up no other.
                Err(error) => {
                    tracing::debug!(tenant = %self.tenant, error = %error, "request not answered");
                }
            }
        }
    }

    async fn answer(&mut self, request: &KubeletRequest) -> Result<(), Error> {
        let asked = match asked(request) {
            None => return Ok(()),
            Some(Ok(asked)) => asked,
            Some(Err((reason, why))) => return self.deny(request, None, reason, &why).await,
        };
        // Neither who may join nor who has is taken from a cache.
        let tokens = status::of_tenant(&self.tenant, &self.ctx).await?;
        let all: Vec<&JoinToken> = tokens.iter().collect();
        let token = of_id(&all, &asked.token_id);
        let decided = |exists| decide(&asked, token, &all, exists, Timestamp::now());
        let decision = match decided(false) {
            // Only who would be let in learns whether there is such a node.
            Decision::Admit(_) | Decision::Again => {
                let exists = !make_room(&self.client, &asked.name).await?;
                decided(exists)
            }
            denied @ Decision::Deny(..) => denied,
        };
        match (decision, token) {
            (Decision::Again, _) => self.approve(request).await,
            (Decision::Admit(node), Some(token)) => {
                self.record(token, node).await?;
                self.approve(request).await
            }
            (Decision::Deny(reason, why), token) => self.deny(request, token, reason, &why).await,
            (Decision::Admit(_), None) => Ok(()),
        }
    }

    /// Durable before anything follows from it.
    async fn record(&self, token: &JoinToken, node: JoinedNode) -> Result<(), Error> {
        let old = token.status.clone().unwrap_or_default();
        let name = node.name.clone();
        let mut new = JoinTokenStatus {
            used: old.used + 1,
            ..old.clone()
        };
        new.nodes.push(node);
        stoker_kube::replace_status(&self.ctx.client, token, Some(&old), &new)
            .await
            .map_err(Error::Write)?;
        tracing::info!(tenant = %self.tenant, token = token.name_any(), node = name, "machine let in");
        let message = format!(
            "{name:?} joins, machine {} of {}",
            new.used, token.spec.uses
        );
        let reference = token.object_ref(&());
        self.ctx
            .events
            .publish(&reference, false, "NodeAdmitted", "Approve", &message)
            .await;
        Ok(())
    }

    async fn approve(&self, request: &KubeletRequest) -> Result<(), Error> {
        let answer = Answer {
            approved: true,
            reason: "JoinToken",
            message: "by Stoker: the token lets this machine in",
        };
        self.write(request, answer).await
    }

    async fn deny(
        &mut self,
        request: &KubeletRequest,
        token: Option<&JoinToken>,
        reason: &'static str,
        why: &str,
    ) -> Result<(), Error> {
        let answer = Answer {
            approved: false,
            reason,
            message: why,
        };
        self.write(request, answer).await?;
        let user = &request.username;
        tracing::info!(tenant = %self.tenant, asked_by = user, reason, why, "machine refused");
        let now = Instant::now();
        if self.told.is_some_and(|told| now < told + TELL) {
            return Ok(());
        }
        let tenant = self.ctx.stores.tenants.get(&self.tenant);
        let reference = token.map(|token| token.object_ref(&()));
        let reference = reference.or_else(|| Some(tenant?.object_ref(&())));
        if let Some(reference) = reference {
            self.told = Some(now);
            let note = format!("a machine that asks as {user:?} is refused: {why}");
            self.ctx
                .events
                .publish(&reference, true, "NodeRefused", "Approve", &note)
                .await;
        }
        Ok(())
    }

    async fn write(&self, request: &KubeletRequest, answer: Answer<'_>) -> Result<(), Error> {
        match stoker_kube::answer(&self.client, request, answer).await {
            // Gone, or answered by somebody else. Of another one with its name the watch tells.
            Err(error) if ["NotFound", "Conflict"].contains(&error.category()) => Ok(()),
            written => written.map_err(Error::Inside),
        }
    }

    /// Gives the Nodes that have come what their tokens give; returns when to look for the others.
    async fn equip_all(&self) -> Result<Option<Duration>, Error> {
        let now = Timestamp::now();
        let mut next = None;
        let tokens = self.tokens();
        let all: Vec<&JoinToken> = tokens.iter().map(AsRef::as_ref).collect();
        for token in &tokens {
            let status = token.status.iter();
            let nodes = status.flat_map(|status| &status.nodes);
            // Whoever has come under the name since, by another token, is given what that one gives.
            let missing = nodes.filter(|node| lacks(token, node) && is_latest(&all, node));
            for node in missing {
                let age = now.duration_since(node.admission_time.0);
                if age > GIVEN_UP || equip(token, node, &self.client, &self.ctx).await? {
                    continue;
                }
                let pause = if is_new(node, now) { self.pause } else { LATE };
                next = Some(next.map_or(pause, |next: Duration| next.min(pause)));
            }
        }
        Ok(next)
    }
}
