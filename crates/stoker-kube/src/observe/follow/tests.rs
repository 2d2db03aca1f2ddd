use super::*;
use crate::scenario::{Call, Scenario};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::time::timeout;

const PATH: &str = "/api/v1/namespaces/ns/configmaps";
const BOOKMARKS: &str = "allowWatchBookmarks=true";

/// As the management API server has it.
fn following() -> (impl Stream<Item = String>, Scenario) {
    following_since(None, true)
}

fn following_since(since: Option<&str>, bookmarks: bool) -> (impl Stream<Item = String>, Scenario) {
    let (client, server) = Scenario::new();
    let watch = OwnedWatch {
        resources: Vec::new(),
        selector: "tenant=t".to_owned(),
        fields: None,
        namespace: Some("ns".to_owned()),
        owner_label: None,
        written: Vec::new(),
        bookmarks,
        remembered: 10,
    };
    let since = since.map(str::to_owned);
    let stream = follow(client, &ApiResource::erase::<ConfigMap>(&()), since, &watch);
    let name = |object: Meta| object.metadata.name.unwrap();
    let told = stream.map(move |event| match event {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(object)) => format!("listed {}", name(object)),
        Ok(Event::InitDone) => "complete".to_owned(),
        Ok(Event::Apply(object)) => format!("stored {}", name(object)),
        Ok(Event::Delete(object)) => format!("deleted {}", name(object)),
        Err(Error::InitialListFailed(_)) => "list failed".to_owned(),
        Err(Error::WatchStartFailed(_)) => "watch not started".to_owned(),
        Err(Error::WatchError(status)) => format!("told {}", status.code),
        Err(Error::WatchFailed(_)) => "watch failed".to_owned(),
        Err(Error::NoResourceVersion) => "no version".to_owned(),
    });
    (told, server)
}

fn object(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()},
    })
}

fn list(names: &[&str], version: u64, next: Option<&str>) -> Value {
    let items: Vec<_> = names.iter().map(|name| object(name, version)).collect();
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items,
    })
}

/// Answers with these lines and ends the watch.
fn lines(call: Call, events: &[Value]) {
    let texts: Vec<_> = events.iter().map(Value::to_string).collect();
    call.answer_text(&(texts.join("\n") + "\n"));
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

/// The first watch, which asks for everything, finds its version forgotten.
async fn forgotten(server: &mut Scenario) {
    let call = server.expect("GET", PATH).await;
    assert!(call.uri.contains("watch=true"), "{}", call.uri);
    assert!(call.uri.contains("resourceVersion=0"), "{}", call.uri);
    call.refuse(410, "Expired", "no");
}

async fn told(stream: &mut (impl Stream<Item = String> + Unpin), expected: &[&str]) {
    for expected in expected {
        assert_eq!(stream.next().await.as_deref(), Some(*expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_is_followed_by_a_watch_from_its_version_on() {
    let (stream, mut server) = following();
    let mut stream = Box::pin(stream);
    let serve = async {
        forgotten(&mut server).await;
        let call = server.expect("GET", PATH).await;
        assert!(
            call.uri.contains("labelSelector=tenant%3Dt"),
            "{}",
            call.uri
        );
        call.answer(200, &list(&["a"], 5, Some("more")));
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("continue=more"), "{}", call.uri);
        call.answer(200, &list(&["b"], 5, None));
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("watch=true"), "{}", call.uri);
        assert!(call.uri.contains("resourceVersion=5"), "{}", call.uri);
        assert!(call.uri.contains(BOOKMARKS), "{}", call.uri);
        let mark =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "9"}});
        lines(
            call,
            &[
                event("ADDED", &object("c", 6)),
                event("DELETED", &object("a", 7)),
                event("MODIFIED", &object("b", 8)),
                event("BOOKMARK", &mark),
            ],
        );
        // The watch has ended: the next one goes on where the bookmark was.
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("resourceVersion=9"), "{}", call.uri);
        lines(call, &[event("ADDED", &object("d", 10))]);
        server
    };
    let expected = [
        "watch not started",
        "init",
        "listed a",
        "listed b",
        "complete",
        "stored c",
        "deleted a",
        "stored b",
        "stored d",
    ];
    let (_server, ()) = tokio::join!(serve, told(&mut stream, &expected));
}

#[tokio::test(start_paused = true)]
async fn the_first_watch_begins_with_everything_and_goes_on_from_its_first_bookmark() {
    let mark =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "9"}});
    for marked in [true, false] {
        let (stream, mut server) = following_since(None, false);
        let mut stream = Box::pin(stream);
        let serve = async {
            let call = server.expect("GET", PATH).await;
            assert!(call.uri.contains("watch=true"), "{}", call.uri);
            assert!(call.uri.contains("resourceVersion=0"), "{}", call.uri);
            assert!(call.uri.contains(BOOKMARKS), "{}", call.uri);
            let mut events = vec![
                event("ADDED", &object("a", 7)),
                event("ADDED", &object("b", 5)),
            ];
            events.extend(marked.then(|| event("BOOKMARK", &mark)));
            lines(call, &events);
            // What it began with may not have been all: without a bookmark there is a list.
            let call = server.expect("GET", PATH).await;
            if marked {
                assert!(call.uri.contains("resourceVersion=9"), "{}", call.uri);
                lines(call, &[event("DELETED", &object("a", 10))]);
            } else {
                assert!(!call.uri.contains("watch=true"), "{}", call.uri);
                call.answer(200, &list(&["b"], 9, None));
            }
            server
        };
        let expected: &[&str] = if marked {
            &["stored a", "stored b", "deleted a"]
        } else {
            &["stored a", "stored b", "init", "listed b", "complete"]
        };
        let (_server, ()) = tokio::join!(serve, told(&mut stream, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_just_written_is_not_shown_again() {
    let (stream, mut server) = following_since(Some("7"), false);
    let mut stream = Box::pin(stream);
    let serve = async {
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("watch=true"), "{}", call.uri);
        assert!(call.uri.contains("resourceVersion=7"), "{}", call.uri);
        assert!(!call.uri.contains(BOOKMARKS), "{}", call.uri);
        lines(call, &[event("MODIFIED", &object("a", 9))]);
        // It goes on from there, without a bookmark and without a list.
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("resourceVersion=9"), "{}", call.uri);
        lines(call, &[event("DELETED", &object("a", 12))]);
        server
    };
    let (_server, ()) = tokio::join!(serve, told(&mut stream, &["stored a", "deleted a"]));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_a_forgotten_version_starts_over() {
    let (stream, mut server) = following();
    let mut stream = Box::pin(stream);
    let serve = async {
        forgotten(&mut server).await;
        server.expect("GET", PATH).await.break_off();
        server
            .expect("GET", PATH)
            .await
            .answer(200, &list(&[], 5, None));
        server
            .expect("GET", PATH)
            .await
            .refuse(403, "Forbidden", "no");
        let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "no"});
        let call = server.expect("GET", PATH).await;
        assert!(call.uri.contains("resourceVersion=5"), "{}", call.uri);
        lines(
            call,
            &[event("ADDED", &object("a", 6)), event("ERROR", &gone)],
        );
        server
            .expect("GET", PATH)
            .await
            .answer(200, &list(&["a"], 9, None));
        server
            .expect("GET", PATH)
            .await
            .refuse(410, "Expired", "no");
        server
            .expect("GET", PATH)
            .await
            .answer(200, &list(&[], 10, None));
        server
    };
    let expected = [
        "watch not started",
        "list failed",
        "init",
        "complete",
        "watch not started",
        "stored a",
        "told 410",
        "init",
        "listed a",
        "complete",
        "watch not started",
        "init",
        "complete",
    ];
    let begun = Instant::now();
    let (_server, ()) = tokio::join!(serve, told(&mut stream, &expected));
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "no pause between failures"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_watches_at_once_is_not_asked_all_the_time() {
    let (stream, mut server) = following();
    let mut stream = Box::pin(stream);
    let serve = async {
        forgotten(&mut server).await;
        server
            .expect("GET", PATH)
            .await
            .answer(200, &list(&[], 5, None));
        let mut asked = 0;
        let asking = async {
            while asked < 1000 {
                lines(server.expect("GET", PATH).await, &[]);
                asked += 1;
            }
        };
        let _: Result<(), _> = timeout(Duration::from_secs(10), asking).await;
        asked
    };
    let (asked, _) = tokio::join!(
        serve,
        timeout(Duration::from_secs(11), stream.by_ref().count())
    );
    assert!((5..=12).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_line_beyond_the_limit_ends_the_watch() {
    let text = vec![b'x'; LINE_LIMIT + 1];
    let mut lines = Lines(Box::pin(futures::io::Cursor::new(text)));
    assert!(lines.next().await.is_err());
    let mut lines = Lines(Box::pin(futures::io::Cursor::new(
        b"a\n\nbc\nrest".to_vec(),
    )));
    assert_eq!(lines.next().await.unwrap().unwrap(), b"a");
    assert_eq!(lines.next().await.unwrap().unwrap(), b"bc");
    assert!(lines.next().await.unwrap().is_none());
}
