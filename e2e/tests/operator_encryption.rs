//! What encrypts the stored values changes while people read and write, with the operator's process and API servers that
//! have every flag and file from it, a real pool and a real KMS plugin.

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
#[path = "operator_support/key_change.rs"]
mod key_change;
#[path = "operator_support/kms.rs"]
mod kms;
#[path = "operator_support/pod.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod pod;
#[path = "operator_support/stored.rs"]
mod stored;

use std::time::{Duration, Instant};

use bare::Bare;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use key_change::{copy, entries, outlives};
use kms::KmsPlugin;
use kube::Api;
use kube::api::PostParams;
use pod::{TenantPod, born, change, generation, ready};
use serde_json::{Value, json};
use stoker_lab::versions::{default_kubernetes, oldest_kubernetes};
use stored::{People, marks};

/// Three times an API server looks at its files, once a minute.
const LIMIT: Duration = Duration::from_mins(5);

fn encryption(wish: &Value) -> Value {
    json!({ "kubernetes": { "encryption": wish } })
}

/// Asks for it, and waits until it is so: every stored Secret begins with one of its marks and no other. An API server
/// that does not serve what the operator wrote is started again if `hurried`, which a test cannot wait for each time.
async fn changed(bare: &Bare, pods: &mut [TenantPod], wish: Value, mark: &str, hurried: bool) {
    let begun = Instant::now();
    change(bare, encryption(&wish)).await;
    let mut served = record(bare).await;
    let mut reasons = Vec::new();
    loop {
        let (reason, message, current) = said(bare).await;
        if reasons.last() != Some(&reason) {
            println!("{:?} {reason}: {message}", begun.elapsed());
            reasons.push(reason.clone());
        }
        if current && reason == "Encrypted" {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{reason}: {message}");
        let now = record(bare).await;
        if hurried && now != served {
            // Its files are there by then.
            tokio::time::sleep(Duration::from_secs(1)).await;
            for pod in pods.iter_mut() {
                pod.container.restart().unwrap();
                ready(&mut pod.container, &pod.inside).await;
            }
            served = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{mark} after {:?}: {reasons:?}", begun.elapsed());
    let found = marks(bare, "secrets").await;
    assert!(
        found.len() == 1 && found.keys().all(|found| found.starts_with(mark)),
        "{found:?}"
    );
    assert!(!record(bare).await.contains("\"change\""));
}

/// Some Secrets of people's.
async fn fill(pod: &TenantPod, secrets: usize) {
    let api: Api<Secret> = Api::namespaced(pod.inside.clone(), "default");
    for number in 0..secrets {
        let secret = json!({ "metadata": { "name": format!("before-{number}") }, "stringData": { "a": "b" } });
        let secret = serde_json::from_value(secret).unwrap();
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_api_servers_change_over_while_people_work_and_the_operator_is_killed() {
    let bare = Bare::start().await;
    let mut operator = Some(bare.operator());
    let version = default_kubernetes();
    born(&bare, version, json!({})).await;
    let mut pods = vec![
        TenantPod::start(&bare, version, 160).await,
        TenantPod::launch(&bare, version, 161, "two-pod").await,
    ];
    fill(&pods[0], 600).await;
    let people = People::work(&pods);
    change(&bare, encryption(&json!({ "provider": "aescbc" }))).await;
    // Killed at every step, as soon as its record is written.
    let mut known = record(&bare).await;
    let begun = Instant::now();
    let mut kills = 0;
    while kills == 0 || known.contains("\"change\"") {
        assert!(begun.elapsed() < LIMIT, "{:?}", said(&bare).await);
        let now = record(&bare).await;
        if now != known {
            operator.take().unwrap().kill();
            kills += 1;
            known = now;
            operator = Some(bare.operator());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{kills} kills, {:?}", begun.elapsed());
    assert!(kills >= 4);
    changed(
        &bare,
        &mut pods,
        json!({ "provider": "aescbc" }),
        "k8s:enc:aescbc:v1:key2:",
        false,
    )
    .await;
    let (reads, writes) = people.stop().await;
    println!("{reads} reads, {writes} writes");
    assert!(reads > 100 && writes > 20);
    assert_eq!(generation(&bare).await, 1, "a pod restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_takes_the_place_of_another_on_the_newest_release() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let (version, plugin) = (default_kubernetes(), KmsPlugin::start());
    born(&bare, version, mounting(&plugin)).await;
    let mut pods = vec![TenantPod::start(&bare, version, 162).await];
    fill(&pods[0], 20).await;
    let maps: Api<ConfigMap> = Api::namespaced(pods[0].inside.clone(), "default");
    let map = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let people = People::work(&pods);
    let secretbox = marks(&bare, "secrets").await;
    assert!(
        secretbox
            .keys()
            .all(|mark| mark == "k8s:enc:secretbox:v1:key1:"),
        "{secretbox:?}"
    );

    let pods = &mut pods;
    changed(
        &bare,
        pods,
        json!({ "provider": "aescbc" }),
        "k8s:enc:aescbc:v1:",
        true,
    )
    .await;
    let more = json!({ "provider": "aesgcm", "resources": ["secrets", "configmaps"] });
    changed(&bare, pods, more, "k8s:enc:aesgcm:v1:", true).await;
    let maps = marks(&bare, "configmaps").await;
    assert!(
        maps.keys()
            .all(|mark| mark.starts_with("k8s:enc:aesgcm:v1:")),
        "{maps:?}"
    );
    // Another key of the same provider.
    let before = marks(&bare, "secrets").await;
    let again = json!({ "provider": "aesgcm", "keyGeneration": 1 });
    changed(&bare, pods, again, "k8s:enc:aesgcm:v1:", true).await;
    assert_ne!(
        marks(&bare, "secrets").await.keys().next(),
        before.keys().next()
    );
    assert_eq!(plugin.calls(), 0);
    let kms = json!({
        "provider": "kms", "keyGeneration": 0,
        "kms": { "name": "vault", "endpoint": plugin.endpoint },
    });
    changed(&bare, pods, kms, "k8s:enc:kms:v2:vault:", true).await;
    assert!(plugin.calls() > 0);
    // With another provider resources may go too.
    let least = json!({ "provider": "secretbox", "kms": null, "resources": ["secrets"] });
    changed(&bare, pods, least, "k8s:enc:secretbox:v1:", true).await;
    let maps = marks(&bare, "configmaps").await;
    assert_eq!(maps.keys().collect::<Vec<_>>(), ["plain"]);
    let (reads, writes) = people.stop().await;
    println!("{reads} reads, {writes} writes");
    assert_eq!(generation(&bare).await, 1, "a pod restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_change_on_the_oldest_release_which_only_counts_what_it_takes() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let (version, plugin) = (oldest_kubernetes(), KmsPlugin::start());
    born(&bare, version, mounting(&plugin)).await;
    let mut pods = vec![TenantPod::start(&bare, version, 163).await];
    fill(&pods[0], 20).await;
    let people = People::work(&pods);
    let kms = json!({ "provider": "kms", "kms": { "name": "vault", "endpoint": plugin.endpoint } });
    changed(&bare, &mut pods, kms, "k8s:enc:kms:v2:vault:", false).await;
    let back = json!({ "provider": "aesgcm", "kms": null });
    changed(&bare, &mut pods, back, "k8s:enc:aesgcm:v1:", false).await;
    let (reads, writes) = people.stop().await;
    println!("{reads} reads, {writes} writes");
    assert_eq!(generation(&bare).await, 1, "a pod restarts");
}

/// Nobody serves anything here: the change waits with the keys of both sides, which nothing may lose.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_both_sides_outlive_their_secret_their_copy_and_the_operator() {
    let bare = Bare::start().await;
    let operator = bare.operator();
    born(&bare, default_kubernetes(), json!({})).await;
    let (first, old_copy) = (entries(&bare, SECRET).await, copy(&bare).await);
    change(&bare, encryption(&json!({ "provider": "aescbc" }))).await;
    bare.tenant_reason("a", "one", "EncryptionApplied", "EncryptionWaiting")
        .await;
    let both = entries(&bare, SECRET).await;
    assert!(record(&bare).await.contains("Reading"));
    let new_copy = copy(&bare).await;
    assert_ne!(old_copy, new_copy);

    let keys = (&first, &both);
    let _operator = outlives(&bare, operator, (SECRET, RECORD), keys, &old_copy).await;

    // Nothing was written with the new key: it is taken back.
    change(&bare, encryption(&Value::Null)).await;
    bare.tenant_reason("a", "one", "EncryptionApplied", "Encrypted")
        .await;
    let now = record(&bare).await;
    assert!(now.contains("key1") && !now.contains("key2"), "{now}");
}

const SECRET: &str = "one-encryption-config";
const RECORD: &str = "encryption-record.json";

/// What is recorded of a change; empty where nothing ever changed.
async fn record(bare: &Bare) -> String {
    key_change::entry(bare, SECRET, RECORD).await
}

async fn said(bare: &Bare) -> (String, String, bool) {
    key_change::said(bare, "EncryptionApplied").await
}

/// The plugin's directory as a volume, where a container of the pod would put its socket.
fn mounting(plugin: &KmsPlugin) -> Value {
    json!({ "controlPlane": { "deployment": {
        "additionalVolumes": [{ "name": "kms", "emptyDir": {} }],
        "additionalVolumeMounts": { "apiServer": [{ "name": "kms", "mountPath": plugin.directory }] },
    }}})
}
