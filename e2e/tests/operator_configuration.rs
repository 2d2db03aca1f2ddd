//! What people ask of `spec.kubernetes`, with the operator's process and API servers that have every flag and file from it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/issuer.rs"]
mod issuer;
#[path = "operator_support/pod.rs"]
mod pod;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bare::{Bare, until};
use issuer::OidcIssuer;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::PostParams;
use pod::{TenantPod, born, change, generation};
use serde_json::{Value, json};
use stoker_lab::versions::{KubernetesVersion, default_kubernetes, oldest_kubernetes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An API server looks at its files at least once a minute, and sends audit events every half.
const SLOW: Duration = Duration::from_secs(100);

/// Waits until `holds` of what an API server does by itself.
async fn eventually(pod: &TenantPod, what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        if begun.elapsed() > SLOW {
            let log = pod.container.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
            let last = &lines[lines.len().saturating_sub(25)..];
            panic!("not within {SLOW:?}: {what}\n{}", last.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{what} after {:?}", begun.elapsed());
}

/// Whom the API server takes the bearer of a token for; `None` when it does not let it in.
async fn who(pod: &TenantPod, token: &str) -> Option<UserInfo> {
    let reviews: Api<SelfSubjectReview> = Api::all(pod.with_token(token));
    let (params, nothing) = (PostParams::default(), SelfSubjectReview::default());
    match reviews.create(&params, &nothing).await {
        Ok(review) => review.status.unwrap().user_info,
        Err(kube::Error::Api(status)) if status.code == 401 => None,
        Err(error) => panic!("{error:?}"),
    }
}

async fn name(pod: &TenantPod, token: &str) -> Option<String> {
    who(pod, token).await.and_then(|user| user.username)
}

fn jwt(issuer: &OidcIssuer, mappings: &Value) -> Value {
    json!({
        "issuer": {
            "url": issuer.url, "audiences": ["stoker"],
            "certificateAuthority": issuer.authority,
        },
        "claimMappings": mappings,
    })
}

fn asking(jwt: &[Value]) -> Value {
    json!({ "kubernetes": { "authentication": { "jwt": jwt } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_come_and_go_without_a_restart_on_the_newest_release() {
    Box::pin(issuers_come_and_go(default_kubernetes(), 150)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_come_and_go_without_a_restart_on_the_oldest_release() {
    Box::pin(issuers_come_and_go(oldest_kubernetes(), 151)).await;
}

async fn issuers_come_and_go(version: KubernetesVersion, second: u8) {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    born(&bare, version, json!({})).await;
    let pod = TenantPod::start(&bare, version, second).await;
    let (one, two) = (OidcIssuer::start().await, OidcIssuer::start().await);
    let alice = one.token("alice", &json!({ "groups": ["dev"], "team": "gpu" }));
    assert_eq!(
        name(&pod, &alice).await,
        None,
        "nobody was asked to trust the issuer"
    );

    let prefixed = json!({
        "username": { "claim": "sub", "prefix": "one:" },
        "groups": { "claim": "groups", "prefix": "one:" },
        "extra": [{ "key": "example.com/team", "valueExpression": "claims.?team.orValue('')" }],
    });
    // Without prefixes it could say anything.
    let plain = json!({
        "username": { "expression": "claims.sub" },
        "groups": { "expression": "claims.?groups.orValue([])" },
    });
    change(&bare, asking(&[jwt(&one, &prefixed), jwt(&two, &plain)])).await;
    eventually(&pod, "a token lets in", async || {
        name(&pod, &alice).await.is_some()
    })
    .await;
    let user = who(&pod, &alice).await.unwrap();
    assert_eq!(user.username.as_deref(), Some("one:alice"));
    assert_eq!(user.groups.unwrap(), ["one:dev", "system:authenticated"]);
    assert_eq!(user.extra.unwrap()["example.com/team"], ["gpu"]);
    let bob = two.token("bob", &json!({ "groups": ["ops"] }));
    eventually(&pod, "the other issuer's too", async || {
        name(&pod, &bob).await.is_some()
    })
    .await;

    for (what, token) in [
        (
            "another audience",
            one.token("alice", &json!({ "aud": "other" })),
        ),
        (
            "an old token",
            one.token("alice", &json!({ "exp": 1_700_000_000 })),
        ),
        (
            "an issuer that it is not",
            one.token("alice", &json!({ "iss": two.url })),
        ),
        (
            "a component",
            two.token("system:kube-scheduler", &json!({})),
        ),
        (
            "masters",
            two.token("eve", &json!({ "groups": ["system:masters"] })),
        ),
    ] {
        assert_eq!(name(&pod, &token).await, None, "{what} is let in");
    }

    // An API server would not start by it, so it does not get it.
    let wrong = json!({ "username": { "expression": "claims.sub + user.name" } });
    change(&bare, asking(&[jwt(&one, &wrong)])).await;
    let said = bare
        .tenant_reason("a", "one", "Ready", "InvalidAuthentication")
        .await;
    assert!(said.contains("jwt[0].claimMappings.username"), "{said}");
    assert_eq!(name(&pod, &alice).await.as_deref(), Some("one:alice"));

    change(&bare, asking(&[jwt(&two, &plain)])).await;
    eventually(&pod, "the issuer is trusted no more", async || {
        name(&pod, &alice).await.is_none()
    })
    .await;
    assert_eq!(name(&pod, &bob).await.as_deref(), Some("bob"));
    assert_eq!(generation(&bare).await, 1, "a pod restarts");
}

/// A server that takes audit events; what it was sent.
async fn audit_sink() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(String::new()));
    let taking = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let taking = taking.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        break;
                    }
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    taking.lock().unwrap().push_str(&text);
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    // Answers to parts of a request are too many, which the client forgives.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (url, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_recorded_where_they_are_asked_to_be() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let (url, taken) = audit_sink().await;
    let version = default_kubernetes();
    born(&bare, version, json!({ "kubernetes": { "audit": {
        "policy": { "rules": [
            { "level": "None", "resources": [{ "group": "", "resources": ["configmaps"] }] },
            { "level": "Metadata", "resources": [{ "group": "" }], "omitStages": ["RequestReceived"] },
        ] },
        "log": {}, "webhook": { "secretName": "sink" },
    }}}))
    .await;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sink",
        "clusters": [{ "name": "sink", "cluster": { "server": url } }],
        "contexts": [{ "name": "sink", "context": { "cluster": "sink", "user": "sink" } }],
        "users": [{ "name": "sink", "user": {} }],
    });
    let sink = json!({ "metadata": { "name": "sink" }, "stringData": { "kubeconfig": kubeconfig.to_string() } });
    let sink = serde_json::from_value(sink).unwrap();
    bare.secrets("a")
        .create(&PostParams::default(), &sink)
        .await
        .unwrap();

    let pod = TenantPod::start(&bare, version, 152).await;
    let made = |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
    let secrets: Api<Secret> = Api::namespaced(pod.inside.clone(), "default");
    let secret = serde_json::from_value(made("Secret", "recorded-secret")).unwrap();
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(pod.inside.clone(), "default");
    let map = serde_json::from_value(made("ConfigMap", "unrecorded-map")).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();

    let events = || -> Vec<Value> {
        let log = pod.container.log();
        let lines = log
            .lines()
            .filter(|line| line.starts_with(r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    eventually(&pod, "the request is on standard output", async || {
        events().iter().any(|event| {
            event["verb"] == "create"
                && event["objectRef"]["name"] == "recorded-secret"
                && event["level"] == "Metadata"
                && event["user"]["username"] == "admin"
        })
    })
    .await;
    eventually(&pod, "the server was sent it", async || {
        taken.lock().unwrap().contains("recorded-secret")
    })
    .await;
    assert!(!pod.container.log().contains("unrecorded-map"));
    assert!(!taken.lock().unwrap().contains("unrecorded-map"));

    // A policy of ours, which an API server must take too, and which restarts it.
    change(
        &bare,
        json!({ "kubernetes": { "audit": { "policy": null, "webhook": null } } }),
    )
    .await;
    until("the pods are replaced", async || {
        generation(&bare).await > 1
    })
    .await;
    let pod = TenantPod::launch(&bare, version, 153, "two-pod").await;
    maps_of(&pod)
        .create(&PostParams::default(), &map)
        .await
        .unwrap_err();
    eventually(&pod, "our policy records who tried", async || {
        pod.container.log().contains("unrecorded-map")
    })
    .await;
}

fn maps_of(pod: &TenantPod) -> Api<ConfigMap> {
    Api::namespaced(pod.inside.clone(), "default")
}
