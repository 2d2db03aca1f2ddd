//! The cluster authority of a tenant is replaced while people work, with the operator's process, an API server that has every
//! flag and file from it, and a real pool. There are no nodes: what a Deployment controller and a node say is said here. That
//! nodes follow is seen on the lab (`lab_front`).

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
#[path = "operator_support/pod.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod pod;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bare::{Bare, until};
use bare_pod::announce;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use key_change::{copy, entries, keep_copy, outlives};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use pod::{TenantPod, born, change};
use serde_json::{Value, json};
use stoker_lab::versions::default_kubernetes;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_mins(3);
const SECRET: &str = "one-ca";
/// Of the only node.
const NODE: &str = "n1";

fn generation(number: i64, former_trust_seconds: i64) -> Value {
    json!({ "kubernetes": { "certificateAuthority": {
        "generation": number, "formerTrustSeconds": former_trust_seconds,
    }}})
}

const RECORD: &str = "ca-record.json";
const CONDITION: &str = "CertificateAuthorityApplied";

async fn entry(bare: &Bare, name: &str) -> String {
    key_change::entry(bare, SECRET, name).await
}

/// What is recorded of a change; empty where nothing ever changed.
async fn record(bare: &Bare) -> String {
    entry(bare, RECORD).await
}

async fn said(bare: &Bare) -> (String, String, bool) {
    key_change::said(bare, CONDITION).await
}

/// The admin's kubeconfig as it is now.
async fn kubeconfig(bare: &Bare) -> String {
    let secret = bare.secrets("a").get("one-admin-kubeconfig").await.unwrap();
    String::from_utf8(secret.data.unwrap()["admin.svc"].0.clone()).unwrap()
}

/// A client by a kubeconfig, at the API server's own address.
async fn by(kubeconfig: &str, address: IpAddr) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.unwrap();
    config.cluster_url = format!("https://{address}:6443").parse().unwrap();
    config.tls_server_name = Some("one.a.svc".to_owned());
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(2));
    Client::try_from(config).unwrap()
}

async fn asks(client: &Client) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.get_opt(NODE).await.map(drop)
}

/// Somebody who has had a kubeconfig from before, and connects anew each time.
struct Person {
    stop: Arc<AtomicBool>,
    work: JoinHandle<u64>,
}

impl Person {
    fn works(kubeconfig: &str, address: IpAddr) -> Self {
        let (stop, kubeconfig) = (Arc::new(AtomicBool::new(false)), kubeconfig.to_owned());
        let stopped = stop.clone();
        let work = tokio::spawn(async move {
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                match asks(&by(&kubeconfig, address).await).await {
                    Ok(()) => answered += 1,
                    // It is being started again, and forgets for a moment who may do what.
                    Err(kube::Error::Api(status)) if [403, 429, 503].contains(&status.code) => {}
                    Err(error @ kube::Error::Api(_)) => panic!("refused: {error:?}"),
                    Err(error) => {
                        let error = format!("{error:?}");
                        assert!(!error.contains("ertificate"), "not believed: {error}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answered
        });
        Self { stop, work }
    }

    /// How often that was answered; it never was refused.
    async fn stops(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.work.await.unwrap()
    }
}

/// What the pods' template says of the files that are read once.
async fn checksum(bare: &Bare) -> String {
    let template = deployments(bare).get("one").await.unwrap();
    let metadata = template.spec.unwrap().template.metadata.unwrap();
    metadata.annotations.unwrap()["stoker.dev/restart-checksum"].clone()
}

fn deployments(bare: &Bare) -> Api<Deployment> {
    Api::namespaced(bare.client.clone(), "a")
}

/// Says what a Deployment controller says of a Deployment whose one pod is of its template, and ready; the pod is.
async fn rolled_out(bare: &Bare) {
    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
    let read = json!({ "metadata": { "annotations": {
        "stoker.dev/restart-checksum": checksum(bare).await,
    }}});
    let (params, read) = (PatchParams::default(), Patch::Merge(read));
    pods.patch("one-pod", &params, &read).await.unwrap();
    let deployments = deployments(bare);
    let found = deployments.get("one").await.unwrap();
    let status = json!({ "status": {
        "observedGeneration": found.metadata.generation,
        "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
    }});
    let (params, status) = (PatchParams::default(), Patch::Merge(status));
    let written = deployments.patch_status("one", &params, &status);
    written.await.unwrap();
}

/// The pod is replaced by one of the present template.
async fn replaced(bare: &Bare, pod: &mut TenantPod) {
    // Its files are there by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    pod.container.restart().unwrap();
    let now = kubeconfig(bare).await;
    let client = by(&now, pod.address).await;
    pod::ready(&mut pod.container, &client).await;
    rolled_out(bare).await;
}

/// The front-proxy authorities.
async fn front_proxy(bare: &Bare) -> Vec<String> {
    let secrets = bare.secrets("a");
    let secret = secrets.get("one-front-proxy-ca-certificate").await.unwrap();
    let data = secret.data.unwrap();
    authorities(&String::from_utf8(data["front-proxy-ca.crt"].0.clone()).unwrap())
}

/// Authorities in a PEM text.
fn authorities(text: &str) -> Vec<String> {
    stoker_pki::pins(text).unwrap()
}

/// Those that nodes are told of.
async fn published(inside: &Client) -> Vec<String> {
    let maps: Api<ConfigMap> = Api::namespaced(inside.clone(), "kube-public");
    let text = maps.get("cluster-info").await.unwrap().data.unwrap()["kubeconfig"].clone();
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
    let data = cluster.certificate_authority_data.unwrap();
    let bytes: ByteString = serde_json::from_value(json!(data)).unwrap();
    authorities(&String::from_utf8(bytes.0).unwrap())
}

/// What aggregated API servers go by is these authorities, and no former one.
async fn aggregated_are_told(inside: &Client, cluster: &[String], front_proxy: &[String]) {
    let maps: Api<ConfigMap> = Api::namespaced(inside.clone(), "kube-system");
    until("aggregated API servers are told", async || {
        let map = maps
            .get("extension-apiserver-authentication")
            .await
            .unwrap();
        let told = |name: &str| authorities(&map.data.as_ref().unwrap()[name]);
        told("requestheader-client-ca-file") == front_proxy && told("client-ca-file") == cluster
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_takes_over_while_people_work_and_the_operator_is_killed() {
    let bare = Bare::start().await;
    let mut operator = Some(bare.operator());
    born(&bare, default_kubernetes(), json!({})).await;
    let mut pod = TenantPod::start(&bare, default_kubernetes(), 170).await;
    rolled_out(&bare).await;
    let nodes: Api<Node> = Api::all(pod.inside.clone());
    let node = serde_json::from_value(json!({ "metadata": { "name": NODE } })).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let (before, old) = (kubeconfig(&bare).await, entry(&bare, "ca.crt").await);
    let [old] = authorities(&old).try_into().unwrap();
    let old_front_proxy = front_proxy(&bare).await;
    let person = Person::works(&before, pod.address);

    change(&bare, generation(1, 0)).await;
    let begun = Instant::now();
    let (mut known, mut template) = (record(&bare).await, checksum(&bare).await);
    let (mut kills, mut reasons) = (0, Vec::new());
    let message = loop {
        let (reason, message, current) = said(&bare).await;
        if reasons.last() != Some(&reason) {
            println!("{:?} {reason}: {message}", begun.elapsed());
            reasons.push(reason.clone());
        }
        if current && reason == "AuthorityAwaitsNodes" {
            break message;
        }
        assert!(begun.elapsed() < LIMIT, "{reason}: {message}");
        let now = record(&bare).await;
        if known != now {
            // Killed at every step, as soon as it is recorded.
            operator.take().unwrap().kill();
            kills += 1;
            known = now;
            operator = Some(bare.operator());
        }
        let now = checksum(&bare).await;
        if template != now {
            template = now;
            replaced(&bare, &mut pod).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(kills, 2, "{reasons:?}");
    assert!(message.contains(NODE), "{message}");
    let both = authorities(&entry(&bare, "ca.crt").await);
    let [new, former] = both.clone().try_into().unwrap();
    assert!(former == old && new != old);
    let now = by(&kubeconfig(&bare).await, pod.address).await;
    asks(&now).await.unwrap();
    until("nodes are told", async || published(&now).await == both).await;
    let answered = person.stops().await;
    println!("{answered} answers to the old kubeconfig");
    assert!(answered > 50);

    // The node follows.
    let told = json!({ "metadata": { "annotations": { "stoker.dev/authority": new } } });
    let params = PatchParams::default();
    let nodes: Api<Node> = Api::all(now.clone());
    nodes
        .patch(NODE, &params, &Patch::Merge(told))
        .await
        .unwrap();
    until("pods are to know the new one alone", async || {
        checksum(&bare).await != template
    })
    .await;
    let (reason, ..) = said(&bare).await;
    assert_eq!(reason, "AuthorityRollingOut");
    replaced(&bare, &mut pod).await;
    bare.tenant_reason(
        "a",
        "one",
        "CertificateAuthorityApplied",
        "AuthorityCurrent",
    )
    .await;
    until("nodes are told", async || {
        published(&now).await == [new.clone()]
    })
    .await;
    assert_eq!(
        authorities(&entry(&bare, "ca.crt").await),
        std::slice::from_ref(&new)
    );
    let front_proxy = front_proxy(&bare).await;
    assert!(front_proxy.len() == 1 && front_proxy != old_front_proxy);
    aggregated_are_told(&now, std::slice::from_ref(&new), &front_proxy).await;
    // Its API server is still believed, and believes it no more.
    let refused = asks(&by(&before, pod.address).await).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 401),
        "{refused:?}"
    );
    asks(&by(&kubeconfig(&bare).await, pod.address).await)
        .await
        .unwrap();
    println!("{:?}", begun.elapsed());
}

/// No API server runs here: the change waits with the next authority's key, which nothing may lose.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_comes_in_outlives_its_secret_its_copy_and_the_operator() {
    let bare = Bare::start().await;
    let operator = bare.operator();
    born(&bare, default_kubernetes(), json!({})).await;
    let (first, old_copy) = (entries(&bare, SECRET).await, copy(&bare).await);
    assert!(record(&bare).await.is_empty());
    announce(&bare, "a", "one-pod", [127, 171, 0, 1].into()).await;
    rolled_out(&bare).await;
    change(&bare, generation(1, 0)).await;
    bare.tenant_reason(
        "a",
        "one",
        "CertificateAuthorityApplied",
        "AuthorityRollingOut",
    )
    .await;
    until("it comes in", async || {
        record(&bare).await.contains("distributing")
    })
    .await;
    until("it is copied", async || copy(&bare).await != old_copy).await;
    let both = entries(&bare, SECRET).await;
    assert_eq!(both["ca.key"], first["ca.key"], "it signs too early");
    assert_eq!(both["tls.crt"], first["tls.crt"]);

    let keys = (&first, &both);
    let operator = outlives(&bare, operator, (SECRET, RECORD), keys, &old_copy).await;

    // It has signed nothing: it is taken back.
    change(
        &bare,
        json!({ "kubernetes": { "certificateAuthority": null } }),
    )
    .await;
    until("it is taken back", async || {
        entry(&bare, "ca.crt").await.as_bytes() == first["ca.crt"].0
    })
    .await;
    let after = record(&bare).await;
    assert!(!after.contains("PRIVATE KEY"));

    // The pool is restored from a snapshot of long before: what became of the authority since is nowhere else.
    operator.kill();
    keep_copy(&bare, &old_copy).await;
    let _operator = bare.operator();
    until("the copy follows", async || copy(&bare).await != old_copy).await;
    assert_eq!(record(&bare).await, after);
}
