//! What happened to a tenant, as events of the management cluster tell it.

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::connect::{Target, explain};
use crate::duration::age;
use crate::print::{note, out};
use crate::table::render;

/// Kinds whose events tell of a control plane, apart from the tenant itself.
const KINDS: [&str; 7] = [
    "TenantControlPlane",
    "Deployment",
    "ReplicaSet",
    "Pod",
    "Service",
    "Ingress",
    "TLSRoute",
];
/// Letters of what Kubernetes adds to a name (`k8s.io/apimachinery/pkg/util/rand`).
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";

/// Prints them, the latest last.
///
/// # Errors
/// They cannot be read.
pub(crate) async fn events(target: &Target, tenant: &str) -> Result<()> {
    let connection = target.connect().await?;
    connection.tenant(tenant).await?;
    let events: Api<Event> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let found = events.list(&ListParams::default()).await.map_err(explain)?;
    if let Some(text) = table(found.items, tenant, Timestamp::now()) {
        return out(&text);
    }
    note("no events: the API server keeps them for an hour unless told otherwise");
    Ok(())
}

fn table(events: Vec<Event>, tenant: &str, now: Timestamp) -> Option<String> {
    let about = |event: &Event| {
        event
            .regarding
            .as_ref()
            .is_some_and(|object| is_of(object, tenant))
    };
    let mut events: Vec<_> = events.into_iter().filter(about).collect();
    events.sort_by_key(last_seen);
    let rows: Vec<_> = events.iter().map(|event| row(event, now)).collect();
    let heading = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"];
    (!rows.is_empty()).then(|| render(&heading, &rows))
}

/// Whether the object is the tenant or of its control plane: named as it, or as Kubernetes names what comes of its
/// Deployment. Pods that are gone are known by nothing else.
fn is_of(object: &ObjectReference, tenant: &str) -> bool {
    let kind = object.kind.as_deref().unwrap_or_default();
    let name = object.name.as_deref().unwrap_or_default();
    if !KINDS.contains(&kind) {
        return false;
    }
    let parts = match name.strip_prefix(tenant) {
        Some("") => return true,
        Some(rest) => rest.strip_prefix('-').map(|rest| rest.split('-')),
        None => None,
    };
    let given = |part: &str| !part.is_empty() && part.chars().all(|letter| RANDOM.contains(letter));
    let count = match kind {
        "ReplicaSet" => 1,
        "Pod" => 2,
        _ => return false,
    };
    parts.is_some_and(|mut parts| parts.clone().count() == count && parts.all(given))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .map(|series| series.last_observed_time.0);
    let old = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    let made = event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    series.or(old).or(first).or(made)
}

fn row(event: &Event, now: Timestamp) -> [String; 6] {
    let seen = last_seen(event).map(|seen| age(now.duration_since(seen).as_secs()));
    let series = event.series.as_ref().map(|series| series.count);
    let count = series.or(event.deprecated_count).unwrap_or(1).max(1);
    let object = event.regarding.clone().unwrap_or_default();
    let kind = object.kind.unwrap_or_default().to_lowercase();
    let text = event.note.clone().unwrap_or_default();
    [
        seen.unwrap_or_else(|| "-".to_owned()),
        event.type_.clone().unwrap_or_default(),
        event.reason.clone().unwrap_or_default(),
        format!("{kind}/{}", object.name.unwrap_or_default()),
        count.to_string(),
        text.split_whitespace().collect::<Vec<_>>().join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, name: &str, seen: &str, reason: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": { "name": reason }, "eventTime": null,
            "deprecatedLastTimestamp": seen, "deprecatedCount": 3, "type": "Warning",
            "reason": reason, "note": "two\nlines", "regarding": { "kind": kind, "name": name },
        }))
        .unwrap()
    }

    #[test]
    fn neighbours_of_a_similar_name_are_told_apart() {
        let cases = [
            ("TenantControlPlane", "demo", true),
            ("TenantControlPlane", "demo-b", false),
            ("Deployment", "demo", true),
            ("ReplicaSet", "demo-7d4b9c6f5", true),
            ("ReplicaSet", "demo-b-7d4b9c6f5", false),
            ("Pod", "demo-7d4b9c6f5-x2x4z", true),
            ("Pod", "demo-b-7d4b9c6f5-x2x4z", false),
            ("Pod", "demo-web-0", false),
            ("Pod", "other-7d4b9c6f5-x2x4z", false),
            ("Secret", "demo", false),
        ];
        for (kind, name, expected) in cases {
            let object = ObjectReference {
                kind: Some(kind.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectReference::default()
            };
            assert_eq!(is_of(&object, "demo"), expected, "{kind} {name}");
        }
    }

    #[test]
    fn the_latest_is_last_and_each_is_one_line() {
        let events = vec![
            event(
                "Pod",
                "demo-7d4b9c6f5-x2x4z",
                "2026-01-01T00:09:00Z",
                "BackOff",
            ),
            event(
                "TenantControlPlane",
                "demo",
                "2026-01-01T00:05:00Z",
                "PodsStarting",
            ),
            event(
                "TenantControlPlane",
                "other",
                "2026-01-01T00:05:00Z",
                "PodsStarting",
            ),
        ];
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let expected = "\
LAST SEEN   TYPE      REASON         OBJECT                     COUNT   MESSAGE
5m          Warning   PodsStarting   tenantcontrolplane/demo    3       two lines
1m          Warning   BackOff        pod/demo-7d4b9c6f5-x2x4z   3       two lines
";
        assert_eq!(table(events, "demo", now).as_deref(), Some(expected));
        assert_eq!(table(Vec::new(), "demo", now), None);
    }
}
