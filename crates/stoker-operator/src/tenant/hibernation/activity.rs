//! When somebody last asked anything of a tenant's API servers. The warden beside each of them knows; it is asked through
//! the API server, as about an access that nobody has.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use stoker_api::tenant::Tenant;

use crate::context::Context;
use crate::tenant::state::{TenantState, lock};
use crate::tenant::writes;

/// `stoker_warden::activity`.
const PROBE: &str = "stoker-activity-probe";
const REASON: &str = "stoker-activity=";

/// Within which all of them answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The latest time that any of them tells, if all do.
pub(super) async fn last(
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
    now: Timestamp,
) -> Option<Timestamp> {
    let pods = lock(&state.pods).serving();
    let asked = pods.into_values().map(async |address| {
        let client = writes::client(address, tenant, None, state, ctx).await?;
        of_one(client, now).await
    });
    let answers = tokio::time::timeout(LIMIT, join_all(asked)).await.ok()?;
    // Of no pod nothing is known, which is not that nobody was there.
    let known: Option<Vec<_>> = answers.into_iter().collect();
    known?.into_iter().max()
}

async fn of_one(client: Client, now: Timestamp) -> Option<Timestamp> {
    let reviews: Api<SubjectAccessReview> = Api::all(client);
    // Answers are kept for a while, by what was asked.
    let path = format!("/{PROBE}/{}", now.as_second());
    let review = json!({ "spec": {
        "user": PROBE, "nonResourceAttributes": { "verb": "get", "path": path },
    }});
    let review = serde_json::from_value(review).ok()?;
    let answer = reviews.create(&PostParams::default(), &review).await;
    let answer = answer
        .inspect_err(|error| tracing::debug!(%error, "an API server does not tell who was there"))
        .ok()?;
    read(&answer.status?.reason?)
}

/// All authorizers give their reasons, one after the other.
fn read(reasons: &str) -> Option<Timestamp> {
    let (_, rest) = reasons.split_once(REASON)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Timestamp::from_second(digits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_among_the_reasons() {
        let at = Timestamp::from_second(1_763_780_000).ok();
        assert_eq!(read("stoker-activity=1763780000"), at);
        assert_eq!(read("RBAC: none\nstoker-activity=1763780000\nx"), at);
        for none in ["", "RBAC: none", "stoker-activity=", "stoker-activity=x"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
