//! From an `AdmissionReview` to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use stoker_api::BaseDomain;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{StandIns, Trial, trial};
use stoker_kube::{Desired, Writer};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::fields::{Part, field};
use super::orders;
use super::verdict::{Fault, Verdict, verdict};
use crate::FIELD_MANAGER;
use crate::args::Args;
use crate::metrics::{Metrics, Reviewed};
use crate::tenant::spec::served;

/// Time for an answer; then the spec is let in with a warning. The configuration gives the webhook two seconds more.
const DEADLINE: Duration = Duration::from_secs(3);
/// Reviews at a time that ask API servers something: whoever reaches the port may send reviews.
const TRIALS: usize = 16;
/// For an object that has no uid yet.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// Answers reviews.
pub struct Reviewer {
    writer: Writer,
    warden_image: String,
    data_store: Option<String>,
    base_domain: Option<BaseDomain>,
    stand_ins: StandIns,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Deserialize)]
struct Review {
    request: Request,
}

/// What is read of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

/// What becomes of a spec.
#[derive(Debug, Default)]
struct Decision {
    /// What is wrong with it; empty lets it in.
    refused: Vec<String>,
    /// What is told to whoever wrote it.
    warnings: Vec<String>,
    /// Whether something could not be asked.
    unknown: bool,
}

/// A spec that can be served, and what it would give.
struct Asked {
    tenant: Tenant,
    trial: Trial,
}

impl Reviewer {
    /// One that asks by `client`, and builds as an operator with these arguments does.
    #[must_use]
    pub fn new(client: Client, args: &Args, metrics: Arc<Metrics>) -> Self {
        Self {
            writer: Writer::new(client, FIELD_MANAGER),
            warden_image: args.warden_image.clone(),
            data_store: args.datastore.clone(),
            base_domain: args.base_domain.clone(),
            stand_ins: StandIns::default(),
            turns: Semaphore::new(TRIALS),
            metrics,
        }
    }

    /// The answer to a review as JSON; `None` to what is none.
    pub async fn answer(&self, review: &[u8]) -> Option<Vec<u8>> {
        let started = Instant::now();
        let Review { request } = serde_json::from_slice(review).ok()?;
        let decided = tokio::time::timeout(DEADLINE, self.decide(&request).boxed()).await;
        let decision = decided.unwrap_or_else(|_| Decision {
            warnings: vec![untried("the API server did not answer in time")],
            unknown: true,
            ..Decision::default()
        });
        let result = match &decision {
            Decision { refused, .. } if !refused.is_empty() => Reviewed::Refused,
            Decision { unknown: true, .. } => Reviewed::Unknown,
            Decision { warnings, .. } if !warnings.is_empty() => Reviewed::Warned,
            Decision { .. } => Reviewed::Allowed,
        };
        self.metrics.reviewed(result, started.elapsed());
        tracing::debug!(?result, took = ?started.elapsed(), refused = ?decision.refused, "reviewed");
        serde_json::to_vec(&response(&request.uid, &decision)).ok()
    }

    async fn decide(&self, request: &Request) -> Decision {
        // What does not read as a tenant was stored by another version of the CRD: the operator says so in its logs.
        let Some(object) = read(&request.object) else {
            return Decision::default();
        };
        let old = read(&request.old_object);
        let unchanged = old.as_ref().is_some_and(|old| old.spec == object.spec);
        if object.metadata.deletion_timestamp.is_some() || unchanged {
            return Decision::default();
        }
        let before = old.as_ref().map(|old| self.ask(old));
        let asked = match self.ask(&object) {
            Ok(asked) => asked,
            // As it was before: what else changed is let in.
            Err(wrong) if before.is_some_and(|before| before.is_err_and(|was| was == wrong)) => {
                return Decision {
                    warnings: vec![wrong],
                    ..Decision::default()
                };
            }
            Err(wrong) => {
                return Decision {
                    refused: vec![wrong],
                    ..Decision::default()
                };
            }
        };
        let before = before.and_then(Result::ok);
        // Never closed.
        let _turn = self.turns.acquire().await;
        let (missing, mut decision) = tokio::join!(
            self.missing(&asked, before.as_ref()),
            self.try_out(&asked, before.as_ref())
        );
        decision.warnings.extend(missing);
        decision
    }

    /// The spec, and what it would give; or what is wrong with it.
    fn ask(&self, object: &TenantControlPlane) -> Result<Asked, String> {
        let mut object = object.clone();
        object.metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
        let tenant = served(&object, self.base_domain.as_ref()).map_err(|(_, wrong)| wrong)?;
        let now = OffsetDateTime::now_utc();
        let trial = trial(&tenant, &self.warden_image, &self.stand_ins, now);
        let trial = trial.map_err(|error| format!("spec.networkProfile.certSANs: {error}"))?;
        Ok(Asked { tenant, trial })
    }

    /// What the spec refers to and is not there, unless it did so before.
    async fn missing(&self, asked: &Asked, before: Option<&Asked>) -> Vec<String> {
        let references = |asked: &Asked| {
            let pods = &asked.tenant.deployment;
            (
                asked.tenant.data_store.clone(),
                pods.runtime_class_name.clone(),
                pods.service_account_name.clone(),
                asked.tenant.gateway.is_some(),
            )
        };
        if before.is_some_and(|before| references(before) == references(asked)) {
            return Vec::new();
        }
        orders::missing(
            self.writer.client(),
            &asked.tenant,
            self.data_store.as_deref(),
        )
        .await
    }

    /// Has the API server look at every object that is not as before.
    async fn try_out(&self, asked: &Asked, before: Option<&Asked>) -> Decision {
        let parts = [Part::Deployment, Part::Service, Part::Ingress];
        let changed = parts.map(|part| {
            let wanted = asked.object(part)?;
            let same = before.and_then(|before| before.object(part));
            let same = same.is_some_and(|same| same.digest() == wanted.digest());
            (!same).then_some((part, wanted))
        });
        let tried = changed.into_iter().flatten();
        let tried = join_all(
            tried.map(|(part, wanted)| async move { (part, self.verdict_of(&wanted).await) }),
        );
        let mut decision = Decision::default();
        for (part, (verdict, warnings)) in tried.await {
            decision.warnings.extend(warnings);
            match verdict {
                Verdict::Taken => {}
                Verdict::NotNow(reason) => {
                    let kind = part.kind();
                    decision
                        .warnings
                        .push(format!("the {kind} cannot be made now: {reason}"));
                }
                Verdict::Unknown(reason) => {
                    decision.unknown = true;
                    decision.warnings.push(untried(&reason));
                }
                Verdict::Refused(faults) => {
                    let known = self.faults_before(part, before).await;
                    for fault in faults {
                        let said = described(part, &fault, asked);
                        if known.contains(&fault) {
                            decision.warnings.push(said);
                        } else {
                            decision.refused.push(said);
                        }
                    }
                }
            }
        }
        decision
    }

    async fn verdict_of(&self, wanted: &Desired) -> (Verdict, Vec<String>) {
        match self.writer.try_out(wanted).await {
            Ok(tried) => (verdict(&tried), tried.warnings),
            Err(error) => {
                let chain = &error as &dyn std::error::Error;
                tracing::warn!(error = chain, "a spec could not be tried out");
                (Verdict::Unknown(error.category().to_owned()), Vec::new())
            }
        }
    }

    /// What was wrong already: an object that is refused now must stay editable in what has nothing to do with it.
    async fn faults_before(&self, part: Part, before: Option<&Asked>) -> Vec<Fault> {
        let Some(wanted) = before.and_then(|before| before.object(part)) else {
            return Vec::new();
        };
        match self.verdict_of(&wanted).await.0 {
            Verdict::Refused(faults) => faults,
            Verdict::Taken | Verdict::NotNow(_) | Verdict::Unknown(_) => Vec::new(),
        }
    }
}

impl Asked {
    fn object(&self, part: Part) -> Option<Desired> {
        match part {
            Part::Deployment => Desired::of(&self.trial.deployment).ok(),
            Part::Service => Desired::of(&self.trial.service).ok(),
            Part::Ingress => Desired::of(self.trial.ingress.as_ref()?).ok(),
        }
    }
}

fn read(object: &Value) -> Option<TenantControlPlane> {
    if object.is_null() {
        return None;
    }
    TenantControlPlane::deserialize(object)
        .inspect_err(|error| tracing::warn!(error = %error, "a tenant under review cannot be read"))
        .ok()
}

/// A fault in the words of the spec, where they are known.
fn described(part: Part, fault: &Fault, asked: &Asked) -> String {
    let message = &fault.message;
    if fault.field.is_empty() {
        return message.clone();
    }
    match field(part, &fault.field, &asked.tenant, &asked.trial) {
        Some(field) => format!("{field}: {message}"),
        None => format!("{} {}: {message}", part.kind(), fault.field),
    }
}

fn untried(reason: &str) -> String {
    format!("what the spec gives could not be tried out and is let in unseen: {reason}")
}

fn response(uid: &str, decision: &Decision) -> Value {
    let allowed = decision.refused.is_empty();
    let mut response = json!({ "uid": uid, "allowed": allowed });
    if !allowed {
        response["status"] = json!({
            "code": 422, "reason": "Invalid", "message": decision.refused.join("; "),
        });
    }
    if !decision.warnings.is_empty() {
        response["warnings"] = json!(decision.warnings);
    }
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    })
}
