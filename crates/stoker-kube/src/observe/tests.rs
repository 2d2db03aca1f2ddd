use super::*;
use crate::scenario::{PATIENCE, Scenario};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::time::timeout;

fn object(name: &str, version: u64) -> Meta {
    Meta {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.to_string()),
            labels: Some([("tenant".to_owned(), "t".to_owned())].into()),
            managed_fields: Some(vec![ManagedFieldsEntry::default()]),
            ..ObjectMeta::default()
        },
        types: None,
        _phantom: std::marker::PhantomData,
    }
}

fn known(limit: usize) -> Known {
    Known::new(ApiResource::erase::<ConfigMap>(&()), Some("tenant"), limit)
}

/// Names of the changes, those of deletions with a minus.
fn names(known: &mut Known, events: Vec<Event<Meta>>) -> Vec<String> {
    let changes = events
        .into_iter()
        .flat_map(|event| known.changes(Ok(event)));
    changes
        .map(|change| {
            let change = change.unwrap();
            format!(
                "{}{}",
                if change.deleted { "-" } else { "" },
                change.key.name()
            )
        })
        .collect()
}

#[test]
fn what_vanished_while_the_watch_was_broken_is_reported_with_its_owner() {
    let mut known = known(10);
    let list = |names: &[&str]| {
        let mut events = vec![Event::Init];
        events.extend(names.iter().map(|name| Event::InitApply(object(name, 5))));
        events.push(Event::InitDone);
        events
    };
    assert_eq!(names(&mut known, list(&["a", "b"])), ["a", "b"]);
    assert_eq!(names(&mut known, vec![Event::Apply(object("c", 6))]), ["c"]);
    assert_eq!(
        names(&mut known, vec![Event::Delete(object("b", 7))]),
        ["-b"]
    );
    // Everything listed is reported again; c is gone, b was known to be.
    known.changes(Ok(Event::Init));
    known.changes(Ok(Event::InitApply(object("a", 5))));
    let gone = known.changes(Ok(Event::InitDone)).remove(0).unwrap();
    assert!(gone.deleted);
    assert_eq!(gone.key.to_string(), "ConfigMap ns/c");
    assert_eq!(gone.label("tenant"), Some("t"));
    assert_eq!(gone.fingerprint().uid(), "uid-c");
    assert_eq!(names(&mut known, list(&["a"])), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_what_was_written_begins_behind_the_first_of_it_and_misses_nothing() {
    const UID: &str = "uid-any";
    let (client, mut server) = Scenario::new();
    let config_map = |name| ObjectKey::of::<ConfigMap>(Some("ns"), name);
    let secret = ObjectKey::of::<Secret>(Some("ns"), "c");
    let written = |key, version| (key, Fingerprint::of(&object("any", version).metadata));
    let watch = OwnedWatch {
        resources: vec![ApiResource::erase::<ConfigMap>(&())],
        selector: String::new(),
        fields: None,
        namespace: None,
        owner_label: None,
        written: vec![
            written(config_map("a"), 11),
            written(config_map("b"), 9),
            written(secret, 5),
        ],
        bookmarks: true,
        remembered: 10,
    };
    let mut changes = Box::pin(watch_owned(client, watch));
    let serve = async {
        let call = server.expect("GET", "/api/v1/configmaps").await;
        assert!(call.uri.contains("resourceVersion=9"), "{}", call.uri);
        call.refuse(410, "Expired", "no");
        let call = server.expect("GET", "/api/v1/configmaps").await;
        assert!(!call.uri.contains("watch=true"), "{}", call.uri);
        call.answer(
            200,
            &json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": { "resourceVersion": "20" },
                "items": [{ "metadata": { "namespace": "ns", "name": "a", "uid": UID, "resourceVersion": "11" } }],
            }),
        );
    };
    let seen = async {
        assert!(changes.next().await.unwrap().is_err(), "told of the 410");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let change = timeout(PATIENCE, changes.next()).await.expect("a change");
            let change = change.unwrap().unwrap();
            assert_eq!(change.fingerprint().uid(), UID, "the ledger goes by it");
            seen.push((change.key.name().to_owned(), change.deleted));
        }
        seen
    };
    let ((), seen) = tokio::join!(serve, seen);
    assert_eq!(seen, [("a".to_owned(), false), ("b".to_owned(), true)]);
}

#[test]
fn managed_fields_are_dropped() {
    let change = known(10)
        .changes(Ok(Event::Apply(object("a", 5))))
        .remove(0);
    let fields = change.unwrap().metadata.managed_fields;
    assert!(fields.is_none_or(|fields| fields.is_empty()));
}

#[test]
fn no_more_is_remembered_than_allowed() {
    let mut known = known(2);
    let events = ["a", "b", "c", "a"].map(|name| Event::Apply(object(name, 5)));
    assert_eq!(names(&mut known, events.into()).len(), 4);
    assert_eq!(known.objects.len(), 2);
}

#[test]
fn a_broken_watch_is_reported() {
    let error = known(1)
        .changes(Err(watcher::Error::NoResourceVersion))
        .remove(0);
    assert_eq!(error.unwrap_err().category(), "InvalidResponse");
}
