//! The tenant `one` in the namespace `a` behind a real gateway: somebody does what a kubelet and the `EndpointSlice`
//! controller do, so that its API server runs while its Deployment wants a pod.

#[path = "../support/gateway.rs"]
mod gateway;
#[path = "../support/own_address.rs"]
mod own_address;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use stoker_api::wake;
use tokio::task::JoinHandle;

use own_address::own_address;

use super::bare::{Bare, built, until};
use super::bare_pod::announce;
use super::tenant_server::{self, PORT};

pub(crate) const DOMAIN: &str = "clusters.example.com";

/// A gateway with no rights but those of `manifests/gateway.yaml`; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    health: u16,
    process: Child,
    _kubeconfig: tempfile::NamedTempFile,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    pub(crate) async fn start(bare: &Bare) -> Self {
        gateway::create_roles(&bare.client).await;
        let mut config: Value = serde_saphyr::from_str(bare.kubeconfig()).unwrap();
        config["users"][0]["user"]["as"] = json!(gateway::ACCOUNT);
        config["contexts"][0]["context"]["namespace"] = json!("stoker-system");
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        let [port, health] = stoker_lab::ports::free_ports().unwrap();
        let process = Command::new(built("stoker-gateway"))
            .arg(format!("--base-domain={DOMAIN}"))
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--health-bind-address=127.0.0.1:{health}"))
            .env("KUBECONFIG", kubeconfig.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self {
            port,
            health,
            process,
            _kubeconfig: kubeconfig,
        };
        until("the gateway is ready", async || {
            gateway::is_ready(health).await == Some(true)
        })
        .await;
        gateway
    }

    /// The value of a series.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        gateway::metric(self.health, series).await
    }
}

/// Runs the API server while the Deployment wants a pod.
pub(crate) struct Node {
    /// How long an API server takes to start, beside what it takes.
    pub(crate) slowness: Arc<AtomicU64>,
    /// How many were started.
    pub(crate) started: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) fn start(bare: Arc<Bare>) -> Self {
        let (slowness, started) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let (slow, count) = (slowness.clone(), started.clone());
        let task = tokio::spawn(async move {
            let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), "a");
            let address = SocketAddr::new(own_address(), PORT);
            let mut running = None;
            loop {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let deployment = deployments.get_opt("one").await.ok().flatten();
                let spec = deployment.and_then(|deployment| deployment.spec);
                let wanted = spec.is_some_and(|spec| spec.replicas != Some(0));
                if wanted && running.is_none() {
                    let pause = slow.load(Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    running = Some(tenant_server::start(&bare, "a", address).await);
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    announce(&bare, "a", &format!("one-{number}"), address.ip()).await;
                    slice(&bare.client, address, true).await;
                } else if !wanted && running.is_some() {
                    slice(&bare.client, address, false).await;
                    running = None;
                    let name = format!("one-{}", count.load(Ordering::Relaxed) - 1);
                    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
                    let at_once = DeleteParams::default().grace_period(0);
                    pods.delete(&name, &at_once).await.unwrap();
                }
            }
        });
        Self {
            slowness,
            started,
            task,
        }
    }
}

async fn slice(client: &Client, address: SocketAddr, ready: bool) {
    let slices = Api::namespaced(client.clone(), "a");
    gateway::write_slice(&slices, "one-0", "one", address, ready).await;
}

/// Entries of tenants that are wanted.
pub(crate) async fn requests(bare: &Bare) -> usize {
    let maps: Api<ConfigMap> = Api::namespaced(bare.client.clone(), "stoker-system");
    let requests = maps.get(wake::REQUESTS).await.unwrap();
    requests.data.unwrap_or_default().len()
}
