//! When somebody last asked anything of a tenant's API servers. The warden beside each of them knows; it is asked through
//! the API server, as about an access that nobody has. What people have open to pods since then, the API server itself
//! tells, in its metrics.

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

/// The latest time that any of them tells, if all do. Open streams are looked for where nobody asked since `idle_since`.
pub(super) async fn last(
    tenant: &Tenant,
    state: &TenantState,
    ctx: &Context,
    idle_since: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let pods = lock(&state.pods).serving();
    let asked = pods.into_values().map(async |address| {
        let client = writes::client(address, tenant, None, state, ctx).await?;
        let last = asked(client.clone(), now).await?;
        if last > idle_since || !has_streams(&client).await? {
            return Some(last);
        }
        Some(now)
    });
    let answers = tokio::time::timeout(LIMIT, join_all(asked)).await.ok()?;
    // Of no pod nothing is known, which is not that nobody was there.
    let all: Option<Vec<_>> = answers.into_iter().collect();
    all?.into_iter().max()
}

async fn asked(client: Client, now: Timestamp) -> Option<Timestamp> {
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

/// Whether somebody has a stream to a pod open. It was asked for once, and nobody need ask for anything while it is.
async fn has_streams(client: &Client) -> Option<bool> {
    let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
    let metrics = client.request_text(request).await;
    let metrics = metrics
        .inspect_err(|error| tracing::debug!(%error, "an API server does not tell what is open"))
        .ok()?;
    Some(metrics.lines().any(is_open_stream))
}

/// One that is there and not 0. Logs are not among them: programs follow them, and nothing is lost when they end.
fn is_open_stream(line: &str) -> bool {
    let Some((labels, count)) = line
        .strip_prefix("apiserver_longrunning_requests{")
        .and_then(|rest| rest.rsplit_once("} "))
    else {
        return false;
    };
    let says = |label: &str| labels.split(',').any(|found| found == label);
    let to_pods = ["exec", "attach", "portforward"]
        .iter()
        .any(|kind| says(&format!("subresource=\"{kind}\"")));
    to_pods && says("resource=\"pods\"") && count.trim() != "0"
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
    fn a_shell_is_a_stream_and_a_watch_is_none() {
        let of = |resource: &str, subresource: &str, count: &str| {
            format!(
                "apiserver_longrunning_requests{{component=\"apiserver\",group=\"\",resource=\"{resource}\",\
                 scope=\"resource\",subresource=\"{subresource}\",verb=\"CONNECT\",version=\"v1\"}} {count}"
            )
        };
        for kind in ["exec", "attach", "portforward"] {
            assert!(is_open_stream(&of("pods", kind, "1")), "{kind}");
            assert!(!is_open_stream(&of("pods", kind, "0")), "{kind}");
        }
        for (resource, subresource) in [("pods", ""), ("pods", "log"), ("nodes", "proxy")] {
            assert!(!is_open_stream(&of(resource, subresource, "1")));
        }
        let help = "# TYPE apiserver_longrunning_requests gauge";
        assert!(!is_open_stream(help));
    }

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
