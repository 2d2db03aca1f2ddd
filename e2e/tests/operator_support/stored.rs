//! What is stored of the tenant `one` in the namespace `a`, how it begins, and whether people notice anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::bare::Bare;
use super::pod::TenantPod;

/// How many values of a resource begin with each mark.
pub(crate) async fn marks(bare: &Bare, resource: &str) -> BTreeMap<String, usize> {
    let tenant = bare.tenants("a").get("one").await.unwrap();
    let id = tenant.status.unwrap().storage.unwrap().setup.schema;
    let prefix = format!("/{id}/{resource}/");
    let answer = bare
        .etcdctl(&["get", &prefix, "--prefix", "-w", "json"])
        .await;
    let answer: Value = serde_json::from_str(&answer.concat()).unwrap();
    let mut found = BTreeMap::new();
    for pair in answer["kvs"].as_array().unwrap() {
        let value = STANDARD.decode(pair["value"].as_str().unwrap()).unwrap();
        *found.entry(mark(&value)).or_default() += 1;
    }
    found
}

fn mark(value: &[u8]) -> String {
    if !value.starts_with(b"k8s:enc:") {
        return "plain".to_owned();
    }
    let parts = value.splitn(6, |byte| *byte == b':').take(5);
    let parts: Vec<_> = parts.map(String::from_utf8_lossy).collect();
    parts.join(":") + ":"
}

/// People who read every Secret by every API server all the time, and write new ones.
pub(crate) struct People {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    readers: Vec<JoinHandle<u64>>,
    writer: JoinHandle<()>,
}

impl People {
    pub(crate) fn work(pods: &[TenantPod]) -> Self {
        let (stop, writes) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let clients = pods.iter().map(|pod| pod.inside.clone());
        let readers =
            clients.map(|client| tokio::spawn(read(client, stop.clone(), writes.clone())));
        let clients = pods.iter().map(|pod| pod.inside.clone()).collect();
        Self {
            readers: readers.collect(),
            writer: tokio::spawn(write(clients, stop.clone(), writes.clone())),
            stop,
            writes,
        }
    }

    /// How often they read everything, and what they wrote. Nothing of it failed.
    pub(crate) async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await.unwrap();
        let mut reads = 0;
        for reader in self.readers {
            reads += reader.await.unwrap();
        }
        (reads, self.writes.load(Ordering::Relaxed))
    }
}

/// An API server that a test has just killed says nothing, or that it starts; anything else is a failure.
fn starts(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 401 | 403 | 429 | 503),
        _ => true,
    }
}

async fn read(client: Client, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) -> u64 {
    let secrets: Api<Secret> = Api::namespaced(client, "default");
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let written = writes.load(Ordering::Relaxed);
        let params = ListParams::default().labels("by=people");
        match secrets.list(&params).await {
            Ok(found) => {
                assert!(found.items.len() as u64 >= written, "some are missing");
                let is_whole = |secret: &Secret| secret.data.as_ref().unwrap()["a"].0 == b"b";
                assert!(found.items.iter().all(is_whole));
                reads += 1;
            }
            Err(error) => assert!(starts(&error), "{error:?}"),
        }
        // These come from the pool, not from what an API server remembers.
        for number in [0, written.saturating_sub(1), reads % 20] {
            for name in [format!("before-{number}"), format!("during-{number}")] {
                if let Err(error) = secrets.get_opt(&name).await {
                    assert!(starts(&error), "{name}: {error:?}");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    reads
}

async fn write(clients: Vec<Client>, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let client = clients[number % clients.len()].clone();
        let secrets: Api<Secret> = Api::namespaced(client, "default");
        let secret = json!({
            "metadata": { "name": format!("during-{number}"), "labels": { "by": "people" } },
            "stringData": { "a": "b" },
        });
        let secret = serde_json::from_value(secret).unwrap();
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => _ = writes.fetch_add(1, Ordering::Relaxed),
            Err(error) => assert!(starts(&error), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
