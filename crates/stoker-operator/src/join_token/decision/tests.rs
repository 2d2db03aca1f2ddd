use serde_json::{Value, json};
use stoker_pki::NodeRequest;

use super::*;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A token of two uses that was made a minute ago and lasts an hour.
fn token(spec: Value, status: Value) -> JoinToken {
    let made = Timestamp::from_second(NOW - 60).unwrap();
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
        "metadata": { "name": "workers", "namespace": "a", "uid": "u", "creationTimestamp": made.to_string() },
        "spec": { "tenantControlPlane": "one", "uses": 2 },
        "status": { "tokenId": "abcdef" },
    });
    let merge = |into: &mut Value, from: Value| {
        let from = from.as_object().cloned().unwrap_or_default();
        into.as_object_mut().unwrap().extend(from);
    };
    merge(&mut object["spec"], spec);
    merge(&mut object["status"], status);
    serde_json::from_value(object).unwrap()
}

fn node(name: &str, key: &str, ago: i64, registered: bool) -> Value {
    let at = Timestamp::from_second(NOW - ago).unwrap().to_string();
    let mut node = json!({ "name": name, "key": key, "admissionTime": at });
    if registered {
        node["registrationTime"] = json!(at);
    }
    node
}

fn request(name: &str) -> KubeletRequest {
    KubeletRequest {
        username: "system:bootstrap:abcdef".to_owned(),
        groups: vec!["system:bootstrappers".to_owned(), JOINERS.to_owned()],
        usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
        request: NodeRequest::new(name, None).unwrap().request.into_bytes(),
        ..KubeletRequest::default()
    }
}

fn of(name: &str) -> Asked {
    Asked {
        token_id: "abcdef".to_owned(),
        name: name.to_owned(),
        key: "sha256:1".to_owned(),
    }
}

/// The reason of a refusal, or none.
fn reason(token: &JoinToken, asked: &Asked, exists: bool) -> Option<&'static str> {
    match decide(asked, Some(token), &[token], exists, now()) {
        Decision::Deny(reason, _) => Some(reason),
        _ => None,
    }
}

#[test]
fn a_kubelets_request_is_read_and_others_are_left_to_others() {
    let read = asked(&request("w1.example.com")).unwrap().unwrap();
    assert_eq!((&*read.token_id, &*read.name), ("abcdef", "w1.example.com"));
    let kubeadm = KubeletRequest {
        groups: vec!["system:bootstrappers:kubeadm:default-node-token".to_owned()],
        ..request("w1")
    };
    assert_eq!(asked(&kubeadm), None);
}

#[test]
fn what_is_no_kubelets_request_is_refused() {
    let wrong = [
        request(""),
        request("W1"),
        request("a b"),
        request("-a"),
        request("a..b"),
        KubeletRequest {
            username: "system:node:w1".to_owned(),
            ..request("w1")
        },
        KubeletRequest {
            usages: vec!["server auth".to_owned(), "digital signature".to_owned()],
            ..request("w1")
        },
        KubeletRequest {
            usages: vec!["client auth".to_owned()],
            ..request("w1")
        },
        KubeletRequest {
            request: b"no request".to_vec(),
            ..request("w1")
        },
    ];
    for request in wrong {
        assert!(asked(&request).unwrap().is_err(), "{request:?}");
    }
}

#[test]
fn a_machine_is_let_in_once_and_the_same_one_again() {
    let fresh = token(json!({}), json!({}));
    let Decision::Admit(joined) = decide(&of("w1"), Some(&fresh), &[&fresh], false, now()) else {
        panic!("refused");
    };
    assert_eq!((&*joined.name, &*joined.key), ("w1", "sha256:1"));
    // It asks again: its answer was lost, or its Node has come meanwhile.
    let used = json!({ "used": 2, "nodes": [node("w1", "sha256:1", 5, false)] });
    let used = token(json!({}), used);
    for exists in [false, true] {
        let decision = decide(&of("w1"), Some(&used), &[&used], exists, now());
        assert!(matches!(decision, Decision::Again(_)), "{decision:?}");
    }
    assert_eq!(reason(&used, &of("w2"), false), Some("TokenExhausted"));
}

#[test]
fn no_token_gets_the_name_of_a_node_that_lives() {
    let fresh = token(json!({}), json!({}));
    assert_eq!(reason(&fresh, &of("w1"), true), Some("NodeNameInUse"));
    // Let in a moment ago and not there yet, by this token or another one.
    let held = json!({ "used": 1, "nodes": [node("w1", "sha256:2", 5, false)] });
    let held = token(json!({}), held);
    assert_eq!(reason(&held, &of("w1"), false), Some("NodeNameInUse"));
    let decision = decide(&of("w1"), Some(&fresh), &[&fresh, &held], false, now());
    assert!(matches!(decision, Decision::Deny("NodeNameInUse", _)));
    // It never came, or it came and its Node is gone.
    for node in [
        node("w1", "sha256:2", 700, false),
        node("w1", "sha256:2", 5, true),
    ] {
        let free = token(json!({}), json!({ "used": 1, "nodes": [node] }));
        assert_eq!(reason(&free, &of("w1"), false), None);
    }
    // The key that was let in first is not the node's any more.
    let both = [
        node("w1", "sha256:1", 900, true),
        node("w1", "sha256:2", 800, true),
    ];
    let both = token(json!({ "uses": 5 }), json!({ "used": 2, "nodes": both }));
    assert_eq!(reason(&both, &of("w1"), true), Some("NodeNameInUse"));
}

#[test]
fn a_token_that_ended_or_is_for_others_lets_nobody_in() {
    let ended = token(json!({ "expirationSeconds": 60 }), json!({}));
    assert_eq!(reason(&ended, &of("w1"), false), Some("TokenExpired"));
    let named = token(json!({ "nodeNames": ["w1"] }), json!({}));
    assert_eq!(reason(&named, &of("w1"), false), None);
    assert_eq!(reason(&named, &of("w2"), false), Some("NodeNotOfToken"));
    let mut going = token(json!({}), json!({}));
    going.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(reason(&going, &of("w1"), false), Some("TokenRevoked"));
    let unknown = decide(&of("w1"), None, &[], false, now());
    assert!(matches!(unknown, Decision::Deny("TokenRevoked", _)));
}

#[test]
fn what_a_token_gives_is_for_the_last_machine_of_a_name_over_all_tokens() {
    let of = |networks: &[&str], nodes: Value| {
        token(
            json!({ "nodeNetworks": networks }),
            json!({ "nodes": nodes }),
        )
    };
    let former = of(
        &["10.7.0.0/16"],
        json!([node("w1", "1", 900, false), node("w2", "2", 900, true)]),
    );
    let latter = of(&["10.8.0.0/16"], json!([node("w1", "3", 30, false)]));
    let last = of(
        &[],
        json!([node("w2", "4", 20, true), node("w3", "5", 20, true)]),
    );
    for all in [[&former, &latter, &last], [&last, &latter, &former]] {
        let nodes = all.iter().flat_map(|token| &token.status);
        let nodes = nodes.flat_map(|status| &status.nodes);
        let mut keys: Vec<_> = nodes
            .filter(|node| is_latest(&all, node))
            .map(|node| &*node.key)
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, ["3", "4", "5"]);
        let bound = [("w1".to_owned(), vec!["10.8.0.0/16".parse().unwrap()])];
        assert_eq!(
            networks(&all),
            bound.into(),
            "w2 came by a token that binds none"
        );
    }
}

#[test]
fn what_a_token_gave_does_not_come_back_when_a_later_one_of_the_name_goes() {
    let bound = json!({ "nodeNetworks": ["10.7.0.0/16"] });
    let with = |nodes: Value| token(bound.clone(), json!({ "used": 2, "nodes": nodes }));
    let two = [node("w1", "1", 900, true), node("w2", "2", 900, true)];
    let former = with(json!(two));
    let last = with(json!([node("w1", "3", 30, true)]));
    let other = with(json!([node("w1", "4", 10, true)]));
    let last_node = last.status.clone().unwrap().nodes.remove(0);
    let all = [&former, &last, &other];
    let found = formers(&all, &last_node);
    let [(whose, status)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((*whose, status.used), (&former, 2));
    let without = JoinToken {
        status: Some(status.clone()),
        ..former.clone()
    };
    let bound: Vec<_> = networks(&[&without]).into_keys().collect();
    assert_eq!(bound, ["w2"], "after the last token was deleted");
    let none = formers(&[&without, &last], &last_node);
    assert_eq!(none, [], "nothing to write");
}

#[test]
fn a_token_that_goes_waits_for_what_is_about_to_come() {
    let until = |spec: Value, nodes: Value| {
        let token = token(spec, json!({ "used": 2, "nodes": nodes }));
        let until = awaited_until(&token, now())?;
        Some(until.as_second() - NOW)
    };
    let none = json!({});
    let come = json!([node("w1", "1", 100, true), node("w2", "2", 700, false)]);
    assert_eq!(until(none.clone(), come.clone()), None, "come, or too late");
    let comes = json!([node("w1", "1", 100, false), node("w2", "2", 30, false)]);
    assert_eq!(until(none, comes), Some(COMES_WITHIN.as_secs() - 30));
    let devices = json!({ "devices": { "nvidia.com/gpu": 8 } });
    assert_eq!(until(devices, come), Some(COMES_WITHIN.as_secs() - 100));
}
