//! Attending to the machines that join a tenant: their requests are answered, and their Nodes get what the token gives.
//!
//! One task per connection into a tenant. While the tenant has no tokens it sleeps; while it has some it watches the names
//! of requests, reads what is asked, and looks for the Nodes of those that were let in.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use stoker_api::v1alpha1::{JoinToken, JoinTokenStatus, JoinedNode, TenantControlPlane};
use stoker_kube::{Answer, Change, KUBELET_CLIENT, KubeletRequest, OwnedWatch};
use tokio::time::{Instant, sleep_until, timeout};

use super::decision::{Decision, asked, decide, formers, is_latest, is_new, lacks, of_id};
use super::nodes::{equip, make_room};
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
/// The same of a machine that has not come when it should have, for a day; and after that.
const LATE: Duration = Duration::from_secs(30);
pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);
const OVERDUE: Duration = Duration::from_hours(1);
/// Requests read at the same time.
const CONCURRENCY: usize = 8;
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
        let looked = looked.await;
        let looked_whole = looked.is_ok();
        let pause = match looked {
            Ok(Ok(pause)) => pause,
            Ok(Err(error)) => {
                tracing::debug!(tenant = %self.tenant, error = %error, "machines that join not looked at");
                Some(self.pause)
            }
            Err(_) => Some(LATE),
        };
        let now = Instant::now();
        // Of a look that took too long some may be due still.
        let earliest = if looked_whole { now } else { now + self.pause };
        let waits = self.requests.next().map(Instant::from_std);
        let waits = waits.map(|at| at.max(earliest));
        let pause = pause.map(|pause| now + pause);
        self.due = pause.into_iter().chain(waits).min();
        self.pause = (self.pause * 2).min(AGAIN_AT_MOST);
    }

    async fn answer_all(&mut self) {
        let due = self.requests.due(Instant::now().into_std());
        let read = due.into_iter().map(|name| {
            let client = &self.client;
            async move {
                let read = stoker_kube::kubelet_request(client, &name, KUBELET_CLIENT).await;
                (name, read)
            }
        });
        let read: Vec<_> = stream::iter(read).buffered(CONCURRENCY).collect().await;
        // Neither who may join nor who has is taken from a cache: it is read after the requests, and again once it has changed.
        let mut tokens = None;
        for (name, request) in read {
            let answered = match request {
                Ok(Some(request)) => self.answer(&request, &mut tokens).await,
                // Answered, or gone.
                Ok(None) => Ok(()),
                Err(error) => Err(Error::Inside(error)),
            };
            let Err(error) = answered else {
                self.requests.settle(&name);
                continue;
            };
            // It waits, and holds up no other.
            tracing::debug!(tenant = %self.tenant, error = %error, "request not answered");
            let inside = matches!(error, Error::Inside(_));
            self.requests
                .again(&name, inside, Instant::now().into_std());
        }
    }

    async fn answer(
        &mut self,
        request: &KubeletRequest,
        known: &mut Option<Arc<[JoinToken]>>,
    ) -> Result<(), Error> {
        let asked = match asked(request) {
            None => return Ok(()),
            Some(Ok(asked)) => asked,
            Some(Err((reason, why))) => return self.deny(request, None, reason, &why).await,
        };
        let tokens = match known.clone() {
            Some(tokens) => tokens,
            None => status::of_tenant(&self.tenant, &self.ctx).await?.into(),
        };
        *known = Some(tokens.clone());
        let all: Vec<&JoinToken> = tokens.iter().collect();
        let token = of_id(&all, &asked.token_id);
        let decided = |exists| decide(&asked, token, &all, exists, Timestamp::now());
        let decision = match decided(false) {
            // Only who would be let in learns whether there is such a node.
            Decision::Admit(_) | Decision::Again(_) => {
                let exists = !make_room(&self.client, &asked.name).await?;
                decided(exists)
            }
            denied @ Decision::Deny(..) => denied,
        };
        match (decision, token) {
            (Decision::Again(node), _) => {
                self.forget_former(formers(&all, &node), known).await?;
                self.approve(request).await
            }
            (Decision::Admit(node), Some(token)) => {
                *known = None;
                self.record(token, node.clone()).await?;
                let others = all.iter().filter(|other| other.uid() != token.uid());
                let others: Vec<_> = others.copied().collect();
                self.forget_former(formers(&others, &node), known).await?;
                self.approve(request).await
            }
            (Decision::Deny(reason, why), token) => self.deny(request, token, reason, &why).await,
            (Decision::Admit(_), None) => Ok(()),
        }
    }

    /// What another token gave a former machine of a name is not to come back when the token of the last one goes.
    async fn forget_former(
        &self,
        formers: Vec<(&JoinToken, JoinTokenStatus)>,
        known: &mut Option<Arc<[JoinToken]>>,
    ) -> Result<(), Error> {
        for (former, new) in formers {
            *known = None;
            let old = former.status.as_ref();
            stoker_kube::replace_status(&self.ctx.client, former, old, &new)
                .await
                .map_err(Error::Write)?;
        }
        Ok(())
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
            // Gone; of another one with its name the watch tells. One that has changed is read again.
            Err(error) if error.category() == "NotFound" => Ok(()),
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
                let is_late = now.duration_since(node.admission_time.0) >= DAY;
                if equip(token, node, is_late, &self.client, &self.ctx).await? {
                    continue;
                }
                let pause = match is_late {
                    _ if is_new(node, now) => self.pause,
                    false => LATE,
                    true => OVERDUE,
                };
                next = Some(next.map_or(pause, |next: Duration| next.min(pause)));
            }
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response, StatusCode};
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::client::Body;
    use serde_json::{Value, json};
    use stoker_api::labels::JOINERS;
    use stoker_kube::ObjectKey;
    use tower_test::mock::{self, Handle};

    use super::*;
    use crate::watches::tests::operator;

    /// A request of a token's that is none of a kubelet.
    fn request(conditions: &Value) -> Value {
        json!({
            "metadata": { "name": "node-csr-1", "resourceVersion": "7" },
            "spec": {
                "signerName": KUBELET_CLIENT, "request": ByteString(b"none".to_vec()),
                "username": "system:bootstrap:abcdef", "groups": [JOINERS],
            },
            "status": { "conditions": conditions },
        })
    }

    async fn answers(
        server: &mut Handle<Request<Body>, Response<Body>>,
        method: Method,
        status: StatusCode,
        body: &Value,
    ) {
        let (asked, answer) = server.next_request().await.unwrap();
        assert_eq!(asked.method(), method, "{}", asked.uri());
        let body = Body::from(serde_json::to_vec(body).unwrap());
        let response = Response::builder().status(status).body(body);
        answer.send_response(response.unwrap());
    }

    #[tokio::test]
    async fn a_request_that_changed_before_its_answer_is_answered_all_the_same() {
        let (parts, _management) = operator(&[]);
        let (service, mut inside) = mock::pair();
        let tenant = ObjectRef::new("one").within("a");
        let client = Client::new(service, "default");
        let mut attendance = Attendance {
            connection: parts.ctx.join_tokens.connect(&tenant, &client),
            client,
            tenant,
            ctx: parts.ctx,
            requests: Requests::default(),
            due: None,
            pause: AGAIN,
            // Of this no event is told.
            told: Some(Instant::now()),
        };
        attendance.note(&Change {
            key: ObjectKey::of::<CertificateSigningRequest>(None, "node-csr-1"),
            metadata: ObjectMeta {
                uid: Some("1".to_owned()),
                ..ObjectMeta::default()
            },
            deleted: false,
        });
        let refused = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": "Conflict", "code": 409, "message": "the object has been modified",
        });
        let open = request(&json!([]));
        let serve = async {
            answers(&mut inside, Method::GET, StatusCode::OK, &open).await;
            let conflict = StatusCode::CONFLICT;
            answers(&mut inside, Method::PATCH, conflict, &refused).await;
        };
        tokio::join!(attendance.answer_all(), serve);
        let again = attendance.requests.next();
        assert!(again.is_some(), "it is not answered");

        tokio::time::sleep_until(again.unwrap().into()).await;
        let answered = request(&json!([{ "type": "Denied", "status": "True" }]));
        let serve = answers(&mut inside, Method::GET, StatusCode::OK, &answered);
        tokio::join!(attendance.answer_all(), serve);
        assert_eq!(attendance.requests.next(), None, "somebody else has");
    }
}
