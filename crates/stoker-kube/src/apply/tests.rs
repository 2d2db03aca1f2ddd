use super::*;
use crate::ledger::Observation;
use crate::observe::Change;
use crate::scenario::{PATIENCE, Scenario};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::join;
use tokio::time::timeout;

fn config_map(name: &str) -> Desired {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("ns".into()),
        ..ObjectMeta::default()
    };
    let object = ConfigMap {
        metadata,
        ..ConfigMap::default()
    };
    Desired::of(&object).unwrap()
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/configmaps/{name}")
}

/// A ledger in which `names` were applied.
async fn applied(writer: &Writer, server: &mut Scenario, names: &[&str]) -> Ledger {
    let ledger = Ledger::new();
    let desired = names.iter().map(|name| config_map(name)).collect();
    let serve = async {
        for name in names {
            server.expect("PATCH", &path(name)).await.store(name, 5);
        }
    };
    let (outcomes, ()) = join!(writer.apply_all(desired, &ledger, 1), serve);
    assert!(outcomes.unwrap().iter().all(|outcome| outcome.changed));
    ledger
}

fn writer() -> (Writer, Scenario) {
    let (client, server) = Scenario::new();
    (Writer::new(client, "tester"), server)
}

#[tokio::test]
async fn apply_is_forced_server_side_apply_under_our_name() {
    let (writer, mut server) = writer();
    let desired = config_map("a");
    let serve = async {
        let call = server.expect("PATCH", &path("a")).await;
        assert!(call.uri.contains("force=true"), "{}", call.uri);
        assert!(call.uri.contains("fieldManager=tester"), "{}", call.uri);
        assert_eq!(call.body["kind"], "ConfigMap");
        call.store("u", 5);
    };
    let (object, ()) = join!(writer.apply(&desired), serve);
    let object = object.unwrap();
    assert_eq!(object.metadata.uid.as_deref(), Some("u"));
    assert!(
        object
            .metadata
            .managed_fields
            .is_none_or(|fields| fields.is_empty())
    );
}

#[tokio::test]
async fn only_metadata_is_asked_for_unless_the_whole_object_is_wanted() {
    let (writer, mut server) = writer();
    let desired = vec![config_map("a"), config_map("b").answered_whole()];
    let serve = async {
        let call = server.expect("PATCH", &path("a")).await;
        assert!(
            call.accept.contains("as=PartialObjectMetadata"),
            "{}",
            call.accept
        );
        call.store("a", 5);
        let call = server.expect("PATCH", &path("b")).await;
        assert_eq!(call.accept, "application/json");
        call.store("b", 6);
    };
    let ledger = Ledger::new();
    let (outcomes, ()) = join!(writer.apply_all(desired, &ledger, 1), serve);
    let outcomes = outcomes.unwrap();
    assert!(outcomes[0].object.is_none());
    let whole = outcomes[1].object.as_ref().unwrap();
    let whole: ConfigMap = serde_json::from_str(whole.get()).unwrap();
    assert_eq!(whole.metadata.uid.as_deref(), Some("b"));
    assert_eq!(ledger.uid(config_map("a").key()).as_deref(), Some("a"));
}

#[tokio::test]
async fn objects_of_the_whole_cluster_have_no_namespace_in_their_path() {
    let (writer, mut server) = writer();
    let mut object = Namespace::default();
    object.metadata.name = Some("a".into());
    let desired = Desired::of(&object).unwrap();
    let serve = async {
        server
            .expect("PATCH", "/api/v1/namespaces/a")
            .await
            .store("u", 5);
    };
    let (object, ()) = join!(writer.apply(&desired), serve);
    object.unwrap();
}

#[tokio::test]
async fn a_second_pass_sends_nothing_and_a_changed_object_alone_is_sent() {
    let (writer, mut server) = writer();
    let ledger = applied(&writer, &mut server, &["a", "b"]).await;
    let desired = vec![config_map("a"), config_map("b")];
    // Nobody answers here: a request would hang.
    let again = writer.apply_all(desired.clone(), &ledger, 1);
    let outcomes = timeout(PATIENCE, again).await.unwrap().unwrap();
    assert!(outcomes.iter().all(|o| !o.changed && o.object.is_none()));

    let tampered = Change {
        key: desired[1].key().clone(),
        metadata: ObjectMeta {
            uid: Some("b".into()),
            resource_version: Some("9".into()),
            ..ObjectMeta::default()
        },
        deleted: false,
    };
    ledger.observe(&tampered);
    let serve = async { server.expect("PATCH", &path("b")).await.store("b", 10) };
    let (outcomes, ()) = join!(writer.apply_all(desired, &ledger, 1), serve);
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes[1].key.name(), "b");
    assert!(outcomes[1].changed && !outcomes[0].changed);
}

#[tokio::test]
async fn objects_are_applied_at_once_up_to_the_limit() {
    let (writer, mut server) = writer();
    let ledger = Ledger::new();
    let desired = ["a", "b", "c"].map(config_map).into();
    let serve = async {
        let first = server.expect("PATCH", &path("a")).await;
        // The second request is here while the first has no answer yet.
        let second = server.expect("PATCH", &path("b")).await;
        second.store("b", 6);
        first.store("a", 5);
        server.expect("PATCH", &path("c")).await.store("c", 7);
    };
    let (outcomes, ()) = join!(writer.apply_all(desired, &ledger, 2), serve);
    let names: Vec<_> = outcomes
        .unwrap()
        .iter()
        .map(|o| o.key.name().to_owned())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_failure_at_any_call_stops_no_other_and_is_made_good_by_the_next_pass() {
    let names = ["a", "b", "c"];
    for failing in names {
        for broken in [true, false] {
            let (writer, mut server) = writer();
            let ledger = Ledger::new();
            let desired: Vec<_> = names.map(config_map).into();
            let serve = async {
                for name in names {
                    let call = server.expect("PATCH", &path(name)).await;
                    match (name == failing, broken) {
                        (true, true) => call.break_off(),
                        (true, false) => call.refuse(403, "Forbidden", "no"),
                        (false, _) => call.store(name, 5),
                    }
                }
            };
            let (outcomes, ()) = join!(writer.apply_all(desired.clone(), &ledger, 1), serve);
            let error = outcomes.unwrap_err();
            assert_eq!(error.key().unwrap().name(), failing);
            assert_eq!(
                error.category(),
                if broken { "Unreachable" } else { "Forbidden" }
            );
            assert_eq!(error.is_transient(), broken);
            let stored = Change {
                key: error.key().unwrap().clone(),
                metadata: ObjectMeta::default(),
                deleted: false,
            };
            assert_eq!(ledger.observe(&stored), Observation::Changed);

            let serve = async {
                server
                    .expect("PATCH", &path(failing))
                    .await
                    .store(failing, 9);
            };
            let (outcomes, ()) = join!(writer.apply_all(desired, &ledger, 1), serve);
            assert_eq!(outcomes.unwrap().len(), 3);
        }
    }
}

#[tokio::test]
async fn what_others_write_while_our_answer_is_on_its_way_is_overwritten_in_the_same_pass() {
    let (writer, mut server) = writer();
    let ledger = Ledger::new();
    let desired = config_map("a");
    let tampered = Change {
        key: desired.key().clone(),
        metadata: ObjectMeta {
            uid: Some("a".into()),
            resource_version: Some("6".into()),
            ..ObjectMeta::default()
        },
        deleted: false,
    };
    let serve = async {
        let call = server.expect("PATCH", &path("a")).await;
        ledger.observe(&tampered);
        call.store("a", 5);
        server.expect("PATCH", &path("a")).await.store("a", 7);
    };
    let wanted = vec![desired.clone().answered_whole()];
    let (outcomes, ()) = join!(writer.apply_all(wanted, &ledger, 1), serve);
    let object = outcomes.unwrap().remove(0).object.unwrap();
    let object: ConfigMap = serde_json::from_str(object.get()).unwrap();
    assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
    assert!(ledger.is_current(&desired));
}

#[tokio::test]
async fn deleting_what_is_not_there_is_fine() {
    let (writer, mut server) = writer();
    let key = config_map("a").key().clone();
    let serve = async {
        server
            .expect("DELETE", &path("a"))
            .await
            .refuse(404, "NotFound", "no");
        server
            .expect("DELETE", &path("a"))
            .await
            .answer(200, &json!({"kind": "Status"}));
        let call = server.expect("DELETE", &path("a")).await;
        assert_eq!(call.body["preconditions"]["uid"], "u");
        assert_eq!(call.body["propagationPolicy"], "Background");
        call.refuse(
            409,
            "Conflict",
            "the UID in the precondition (u) does not match",
        );
        let namesake = json!({"metadata": {"name": "a", "uid": "w"}});
        server
            .expect("GET", &path("a"))
            .await
            .answer(200, &namesake);
        server
            .expect("DELETE", &path("a"))
            .await
            .refuse(409, "Conflict", "still in use");
        let same = json!({"metadata": {"name": "a", "uid": "u"}});
        server.expect("GET", &path("a")).await.answer(200, &same);
    };
    let calls = async {
        assert!(!writer.delete(&key, None).await.unwrap());
        assert!(writer.delete(&key, None).await.unwrap());
        assert!(!writer.delete(&key, Some("u")).await.unwrap());
        let error = writer.delete(&key, Some("u")).await.unwrap_err();
        assert_eq!(error.category(), "Conflict");
    };
    join!(calls, serve);
}

#[tokio::test]
async fn prune_deletes_what_was_applied_and_is_no_longer_wanted() {
    let (writer, mut server) = writer();
    let ledger = applied(&writer, &mut server, &["a", "b", "c"]).await;
    let keep = [config_map("b").key().clone()].into();
    let serve = async {
        let call = server.expect("DELETE", &path("a")).await;
        assert_eq!(call.body["preconditions"]["uid"], "a");
        call.refuse(500, "InternalError", "no");
        server
            .expect("DELETE", &path("c"))
            .await
            .answer(200, &json!({"kind": "Status"}));
    };
    let (failed, ()) = join!(writer.prune(&ledger, &keep), serve);
    assert_eq!(failed.unwrap_err().key().unwrap().name(), "a");

    let serve = async {
        server
            .expect("DELETE", &path("a"))
            .await
            .answer(200, &json!({"kind": "Status"}));
    };
    let (removed, ()) = join!(writer.prune(&ledger, &keep), serve);
    assert_eq!(removed.unwrap(), [config_map("a").key().clone()]);
    assert_eq!(ledger.keys(), [config_map("b").key().clone()]);
}

async fn deleted(server: &mut Scenario, name: &str) {
    let call = server.expect("DELETE", &path(name)).await;
    assert_eq!(call.body["preconditions"]["uid"], name);
    call.answer(200, &json!({"kind": "Status"}));
}

#[tokio::test]
async fn prune_kinds_deletes_labelled_leftovers_page_by_page() {
    let (writer, mut server) = writer();
    let kinds = [ApiResource::erase::<ConfigMap>(&())];
    let keep = [config_map("wanted").key().clone()].into();
    let item = |name: &str, deleted: Option<&str>| {
        json!({"metadata": {
            "name": name, "namespace": "ns", "uid": name, "deletionTimestamp": deleted,
        }})
    };
    let serve = async {
        let call = server
            .expect("GET", "/api/v1/namespaces/ns/configmaps")
            .await;
        assert!(
            call.uri.contains("labelSelector=owner%3Dme"),
            "{}",
            call.uri
        );
        let gone = item("going", Some("2026-01-01T00:00:00Z"));
        let items = [item("wanted", None), item("left", None), gone];
        call.answer(
            200,
            &json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"continue": "more"}, "items": items,
            }),
        );
        deleted(&mut server, "left").await;
        let call = server
            .expect("GET", "/api/v1/namespaces/ns/configmaps")
            .await;
        assert!(call.uri.contains("continue=more"), "{}", call.uri);
        call.answer(
            200,
            &json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {}, "items": [item("last", None)],
            }),
        );
        deleted(&mut server, "last").await;
    };
    let prune = writer.prune_kinds(&kinds, Some("ns"), "owner=me", &keep);
    let (removed, ()) = join!(prune, serve);
    let names: Vec<_> = removed
        .unwrap()
        .iter()
        .map(|key| key.name().to_owned())
        .collect();
    assert_eq!(names, ["left", "last"]);
}
