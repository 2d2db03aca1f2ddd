//! The daemon against a real API server, in a private network namespace with pods that the test makes:
//! prints its reaction times. Needs root, the kernel module `br_netfilter`, and the programs ip and nft.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests may"
)]

#[path = "network/hosts.rs"]
#[expect(dead_code, reason = "the traffic tests need more of it")]
mod hosts;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hosts::Host;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nix::sys::signal::{Signal, raise};
use serde_json::{Value, json};
use stoker_lab::bare::BareApiServer;
use stoker_lab::network::{self, NetworkArgs};
use tokio::task::JoinHandle;

const WEB: &str = "10.1.0.1:80";
const DEADLINE: Duration = Duration::from_secs(10);

fn pod_host(node: &Host, number: u8) -> Host {
    let pod = Host::new();
    node.ip(&format!(
        "link add pod{number} type veth peer name eth0 netns {}",
        pod.path()
    ));
    node.ip(&format!("link set pod{number} master cni0 up"));
    pod.ip("link set eth0 up");
    pod.ip(&format!("address add 10.1.0.{number}/24 dev eth0"));
    pod
}

/// The lab of one test: everything but the pods' ends of the cables is inside `node`.
struct Daemon {
    server: BareApiServer,
    client: Client,
    folder: tempfile::TempDir,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    async fn start() -> Self {
        let server = BareApiServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        let running = Self::run(folder.path());
        Self {
            server,
            client,
            folder,
            running,
        }
    }

    fn run(folder: &Path) -> JoinHandle<anyhow::Result<()>> {
        let arguments = NetworkArgs {
            kubeconfig: folder.join("kubeconfig"),
            node_name: "here".into(),
            interface: "uplink".into(),
            pod_interface: "cni0".into(),
            load_balancer_ranges: vec!["192.0.2.100-192.0.2.110".parse().unwrap()],
            cni_results: folder.join("cni"),
        };
        tokio::spawn(network::run(arguments))
    }

    async fn stop(&mut self) {
        raise(Signal::SIGTERM).unwrap();
        (&mut self.running).await.unwrap().unwrap();
    }

    async fn restart(&mut self) {
        self.stop().await;
        self.running = Self::run(self.folder.path());
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create_service(&self, name: &str, spec: Value) {
        let mut whole = json!({ "type": "LoadBalancer", "ports": [{ "port": 6443 }] });
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let service = json!({ "metadata": { "name": name }, "spec": whole });
        let service: Service = serde_json::from_value(service).unwrap();
        self.services()
            .create(&PostParams::default(), &service)
            .await
            .unwrap();
    }

    async fn address(&self, name: &str) -> Option<String> {
        let status = self.services().get(name).await.unwrap().status?;
        status.load_balancer?.ingress?.first()?.ip.clone()
    }

    async fn create_pod(&self, name: &str) -> Pod {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "nodeName": "here", "containers": [{ "name": "main", "image": "none" }] },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        api.create(&PostParams::default(), &pod).await.unwrap()
    }

    async fn report_address(&self, name: &str, address: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let status = json!({ "status": { "podIP": address, "podIPs": [{ "ip": address }] } });
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn create_policy(&self, name: &str, spec: Value) {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), "default");
        let policy = json!({ "metadata": { "name": name }, "spec": spec });
        let policy = serde_json::from_value(policy).unwrap();
        api.create(&PostParams::default(), &policy).await.unwrap();
    }

    async fn delete_policy(&self, name: &str) {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), "default");
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

fn stdout(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn rules() -> String {
    stdout("nft", &["list", "ruleset"])
}

fn interface_addresses() -> String {
    stdout(
        "ip",
        &["-4", "-oneline", "address", "show", "dev", "uplink"],
    )
}

/// Waits for something and returns how long it took.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}\n{}",
            rules()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// One test, since SIGTERM reaches the whole process.
#[test]
fn the_daemon_follows_the_api_and_cleans_up() {
    let node = Host::new();
    node.ip("link add cni0 type bridge");
    node.ip("address add 10.1.0.254/24 dev cni0");
    node.ip("link set cni0 up");
    node.ip("link add uplink type veth peer name far");
    node.ip("address add 192.0.2.1/24 dev uplink");
    node.ip("link set uplink up");
    // A former run left an address that no Service has any more.
    node.ip("address add 192.0.2.105/32 dev uplink");
    let (web, client) = (pod_host(&node, 1), pod_host(&node, 2));
    web.listen("0.0.0.0:80");
    // Threads of this runtime, and its child processes, are born inside the namespace.
    node.enter(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut daemon = Daemon::start().await;
            load_balancer_addresses(&mut daemon).await;
            policies(&mut daemon, &client).await;
            daemon.stop().await;
            assert!(!rules().contains("stoker_lab"), "{}", rules());
            assert!(client.reaches(WEB));
            drop(daemon.server);
        });
    });
}

async fn load_balancer_addresses(daemon: &mut Daemon) {
    until("the address of no Service goes", async || {
        !interface_addresses().contains(".105/")
    })
    .await;
    let mut times = Vec::new();
    for number in 0..5 {
        let name = format!("s{number}");
        daemon.create_service(&name, json!({})).await;
        times.push(until("an address", async || daemon.address(&name).await.is_some()).await);
        let expected = format!("192.0.2.10{number}");
        assert_eq!(
            daemon.address(&name).await.as_deref(),
            Some(expected.as_str())
        );
        assert!(interface_addresses().contains(&format!("{expected}/32")));
    }
    println!(
        "Service created -> status written: median {:?} of {times:?}",
        median(times.clone())
    );

    daemon
        .create_service("classed", json!({ "loadBalancerClass": "example.com/x" }))
        .await;
    daemon
        .create_service("asks", json!({ "loadBalancerIP": "192.0.2.110" }))
        .await;
    until("the address asked for", async || {
        daemon.address("asks").await.as_deref() == Some("192.0.2.110")
    })
    .await;
    assert_eq!(daemon.address("classed").await, None);

    let port = std::net::TcpListener::bind("0.0.0.0:7000").unwrap();
    assert!(std::net::TcpStream::connect("192.0.2.1:7000").is_ok());
    let refused = std::net::TcpStream::connect("192.0.2.100:7000");
    assert!(
        refused.is_err(),
        "the node's own port answers at a Service's address"
    );
    drop(port);

    daemon.restart().await;
    daemon.create_service("later", json!({})).await;
    until("an address", async || {
        daemon.address("later").await.is_some()
    })
    .await;
    assert_eq!(
        daemon.address("later").await.as_deref(),
        Some("192.0.2.105")
    );
    assert_eq!(
        daemon.address("s3").await.as_deref(),
        Some("192.0.2.103"),
        "kept over a restart"
    );

    let cluster_ip = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    daemon
        .services()
        .patch("s0", &PatchParams::default(), &cluster_ip)
        .await
        .unwrap();
    let gone = until("release", async || {
        !interface_addresses().contains("192.0.2.100/")
    })
    .await;
    println!("type changed -> address gone: {gone:?}");
    until("the status is empty", async || {
        daemon.address("s0").await.is_none()
    })
    .await;
    daemon
        .services()
        .delete("s1", &DeleteParams::default())
        .await
        .unwrap();
    let gone = until("release", async || {
        !interface_addresses().contains("192.0.2.101/")
    })
    .await;
    println!("Service deleted -> address gone: {gone:?}");
}

async fn policies(daemon: &mut Daemon, client: &Host) {
    let namespaces: Api<Namespace> = Api::all(daemon.client.clone());
    until("the namespace", async || {
        namespaces.get_opt("default").await.unwrap().is_some()
    })
    .await;
    daemon.create_pod("web").await;
    daemon.report_address("web", "10.1.0.1").await;
    daemon.create_pod("client").await;
    daemon.report_address("client", "10.1.0.2").await;
    assert!(client.reaches(WEB));

    let deny = json!({ "podSelector": { "matchLabels": { "app": "web" } } });
    let (mut closed, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        daemon.create_policy("deny", deny.clone()).await;
        closed.push(
            until("closed", async || {
                rules().contains("pod/default/web/ingress")
            })
            .await,
        );
        assert!(!client.reaches(WEB));
        daemon.delete_policy("deny").await;
        opened.push(
            until("open", async || {
                !rules().contains("pod/default/web/ingress")
            })
            .await,
        );
        assert!(client.reaches(WEB));
    }
    println!(
        "policy created -> in force: median {:?} of {closed:?}",
        median(closed.clone())
    );
    println!(
        "policy deleted -> gone: median {:?} of {opened:?}",
        median(opened.clone())
    );

    // A policy waits for a pod whose address only CNI knows.
    daemon
        .create_policy(
            "new",
            json!({ "podSelector": { "matchLabels": { "app": "new" } } }),
        )
        .await;
    let pod = daemon.create_pod("new").await;
    let result = json!({
        "cniArgs": [
            ["K8S_POD_NAMESPACE", "default"],
            ["K8S_POD_NAME", "new"],
            ["K8S_POD_UID", pod.metadata.uid],
        ],
        "result": { "ips": [{ "address": "10.1.0.3/24" }] },
    });
    std::fs::write(
        daemon.folder.path().join("cni/lab-x-eth0"),
        result.to_string(),
    )
    .unwrap();
    let covered = until("covered", async || {
        rules().contains("pod/default/new/ingress")
    })
    .await;
    println!("CNI result written -> pod covered: {covered:?}");

    daemon.create_policy("deny", deny).await;
    until("closed", async || {
        rules().contains("pod/default/web/ingress")
    })
    .await;
    daemon.restart().await;
    let begun = until("closed after a restart", async || {
        rules().contains("pod/default/web/ingress") && rules().contains("pod/default/new/ingress")
    })
    .await;
    assert!(!client.reaches(WEB));
    println!("daemon started -> policies in force: {begun:?}");
}
