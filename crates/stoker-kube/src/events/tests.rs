use super::*;
use crate::scenario::Scenario;
use serde_json::json;
use tokio::join;

const PATH: &str = "/apis/events.k8s.io/v1/namespaces/ns/events";

fn object() -> ObjectReference {
    ObjectReference {
        kind: Some("TenantControlPlane".into()),
        namespace: Some("ns".into()),
        name: Some("a".repeat(253)),
        uid: Some("u".into()),
        ..ObjectReference::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_words_are_not_repeated_within_ten_minutes() {
    let (client, mut server) = Scenario::new();
    let events = Events::new(client, "stoker", "pod-1");
    let object = object();
    let mut said = Vec::new();
    let serve = async {
        for _ in 0..3 {
            // Not `expect`: ten minutes pass meanwhile.
            let call = server.next().await.unwrap();
            assert_eq!(call.uri.split('?').next(), Some(PATH));
            let name = call.body["metadata"]["name"].as_str().unwrap();
            assert!(name.len() <= 253, "{}", name.len());
            assert_eq!(call.body["type"], "Warning");
            assert_eq!(call.body["reportingInstance"], "pod-1");
            said.push(call.body["note"].as_str().unwrap().to_owned());
            let body = call.body.clone();
            call.answer(201, &body);
        }
    };
    let publish = async {
        for note in ["one", "two", "one"] {
            events.publish(&object, true, "Failed", "Apply", note).await;
        }
        tokio::time::advance(REPEAT_AFTER / 2).await;
        events
            .publish(&object, true, "Failed", "Apply", "one")
            .await;
        tokio::time::advance(REPEAT_AFTER / 2).await;
        events
            .publish(&object, true, "Failed", "Apply", "one")
            .await;
    };
    let both = async { join!(serve, publish) };
    tokio::time::timeout(REPEAT_AFTER * 3, both).await.unwrap();
    assert_eq!(said, ["one", "two", "one"]);
}

#[tokio::test]
async fn a_long_note_is_cut_and_a_refused_event_may_be_tried_again() {
    let (client, mut server) = Scenario::new();
    let events = Events::new(client, "stoker", "pod-1");
    let object = object();
    let note = "ä".repeat(2000);
    let serve = async {
        let call = server.expect("POST", PATH).await;
        assert!(call.body["note"].as_str().unwrap().len() <= NOTE_LIMIT);
        call.refuse(403, "Forbidden", "no");
        server
            .expect("POST", PATH)
            .await
            .answer(201, &json!({"metadata": {}}));
    };
    let publish = async {
        events.publish(&object, false, "Done", "Apply", &note).await;
        events.publish(&object, false, "Done", "Apply", &note).await;
    };
    join!(serve, publish);
}
