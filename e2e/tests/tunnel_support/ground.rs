//! Two networks, an API server, both ends of the tunnel.

use std::future::Future;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stoker_lab::bare::{BareContainer, BareEtcd, Cable};
use stoker_lab::credentials;
use stoker_lab::versions::{ETCD, default_kubernetes};
use stoker_node::tunnel as far;
use stoker_pki::{
    Authority, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, LeafRequest, LeafUsage,
    ServiceAccountKey, kubeconfig,
};
use stoker_warden::metrics::Metrics;
use stoker_warden::tunnel as near;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::sync::oneshot;

use super::kubelet;

const NEAR: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";
/// Where the kubelet is, and only the node's network gets to.
pub(super) const KUBELET: &str = "10.88.0.10";
/// Where something of management's is, and only management gets to.
pub(super) const CANARY: &str = "10.99.0.1";
/// Where a cloud tells a node its secrets.
pub(super) const METADATA: &str = "169.254.169.254";
const API_SERVER_PORT: u16 = 6443;
const TUNNEL_PORT: u16 = 8132;

/// Runs a test on a thread of its own, which may leave its network for good.
pub(super) fn on_a_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

pub(super) struct Ground {
    dir: TempDir,
    authority: Authority,
    cable: Cable,
    pub(super) canary: Canary,
    pub(super) metadata: Canary,
    metrics: Arc<Metrics>,
    _api_server: BareContainer,
    _etcd: BareEtcd,
}

/// Counts those who connect.
pub(super) struct Canary(Arc<AtomicUsize>);

impl Canary {
    fn listen(address: &str) -> Self {
        run("ip", &format!("addr add {address}/32 dev lo"));
        let listener = TcpListener::bind((address, kubelet::PORT)).unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = heard.clone();
        thread::spawn(move || {
            while listener.accept().is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self(heard)
    }

    pub(super) fn heard(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A far end, until dropped.
pub(super) struct Agent {
    _stop: oneshot::Sender<()>,
}

impl Ground {
    /// An API server whose way into the tenant's network is the tunnel, or not.
    pub(super) async fn prepare(tunnel: bool) -> Self {
        let cable = Cable::plug(&format!("{NEAR}/24"), &format!("{FAR}/24")).unwrap();
        let dir = TempDir::new().unwrap();
        let authority = credentials::authority("kubernetes").unwrap();
        credentials::write_authority(dir.path(), "ca", &authority).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let here = [address("127.0.0.1"), address(NEAR)];
        let serving = credentials::server(&authority, "kube-apiserver", &[], &here).unwrap();
        credentials::write_leaf(dir.path(), "api", &serving).unwrap();
        let client =
            credentials::client(&authority, "kube-apiserver-kubelet-client", None).unwrap();
        credentials::write_leaf(dir.path(), "kubelet-client", &client).unwrap();
        let key = ServiceAccountKey::generate().unwrap();
        credentials::write_service_account_key(dir.path(), &key).unwrap();
        let served = leaf(&authority, "worker", LeafUsage::Server, &[KUBELET]);
        credentials::write_leaf(dir.path(), "kubelet", &served).unwrap();

        let canary = Canary::listen(CANARY);
        let metadata = cable.there(|| Canary::listen(METADATA)).unwrap();
        let files = dir.path().to_owned();
        cable
            .there(move || {
                run("ip", &format!("addr add {KUBELET}/32 dev lo"));
                kubelet::serve(&files, KUBELET);
            })
            .unwrap();
        let metrics = Arc::default();
        if tunnel {
            near_end(dir.path().to_owned(), Arc::clone(&metrics)).await;
        }
        let etcd = BareEtcd::start(ETCD).await.unwrap();
        let arguments = arguments(dir.path(), &etcd.endpoint(), tunnel);
        let nothing = std::collections::BTreeMap::new();
        let api_server = BareContainer::start(
            default_kubernetes(),
            &arguments,
            &nothing,
            address("0.0.0.0"),
        )
        .await
        .unwrap();
        let ground = Self {
            dir,
            authority,
            cable,
            canary,
            metadata,
            metrics,
            _api_server: api_server,
            _etcd: etcd,
        };
        let client = ground.client().await;
        super::until_answered(&client, "/readyz").await;
        // Made a moment later.
        super::until_answered(&client, "/api/v1/namespaces/default").await;
        ground
    }

    /// What the near end has counted under a name, the label with it.
    pub(super) fn counted(&self, name: &str) -> usize {
        let text = self.metrics.text();
        let line = format!("stoker_warden_tunnel_{name} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap().parse().unwrap()
    }

    pub(super) async fn client(&self) -> kube::Client {
        let admin = credentials::client(&self.authority, "admin", Some("system:masters")).unwrap();
        let text = kubeconfig(&KubeconfigRequest {
            cluster: "tenant".to_owned(),
            server: format!("https://127.0.0.1:{API_SERVER_PORT}"),
            tls_server_name: None,
            authority: self.authority.certificate().to_owned(),
            user: "admin".to_owned(),
            credentials: KubeconfigCredentials::Inline(admin),
        });
        credentials::kube_client(&text).await.unwrap()
    }

    /// The agent of a node, at the far end of the cable.
    pub(super) fn agent(&self, node: &str, addresses: &[&str]) -> Agent {
        let write = |kind: &str, usage| {
            let pair = leaf(&self.authority, node, usage, addresses);
            let path = self.dir.path().join(format!("{node}-{kind}.pem"));
            std::fs::write(&path, format!("{}{}", pair.certificate, pair.key.as_pem())).unwrap();
            path
        };
        let config = far::Config {
            server: format!("{NEAR}:{TUNNEL_PORT}").parse().unwrap(),
            files: far::Files {
                server_ca: self.dir.path().join("ca.crt"),
                client_certificate: write("client", LeafUsage::Client),
                node_certificate: write("server", LeafUsage::Server),
            },
            egress: far::Egress::new(Vec::new(), Vec::new()),
        };
        let far_end = far::FarEnd::new(config, std::sync::Arc::default());
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            thread::spawn(move || {
                runtime.block_on(far_end.run(async {
                    let _ = stopped.await;
                    std::time::Duration::ZERO
                }));
            });
        };
        // A thread is where the one that made it is.
        self.cable.there(run).unwrap();
        Agent { _stop: stop }
    }
}

fn leaf(
    authority: &Authority,
    node: &str,
    usage: LeafUsage,
    addresses: &[&str],
) -> KeyedCertificate {
    let request = LeafRequest {
        common_name: format!("system:node:{node}"),
        organizations: vec!["system:nodes".to_owned()],
        usage,
        dns_names: Vec::new(),
        ip_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        lifetime: Duration::hours(1),
    };
    authority
        .issue(&request, OffsetDateTime::now_utc())
        .unwrap()
}

async fn near_end(dir: PathBuf, metrics: Arc<Metrics>) {
    let config = near::Config {
        socket: dir.join("tunnel.sock"),
        port: TUNNEL_PORT,
        files: near::Files {
            certificate: dir.join("api.crt"),
            key: dir.join("api.key"),
            client_ca: dir.join("ca.crt"),
        },
        server_count: None,
        api_server: None,
    };
    let near_end = near::NearEnd::bind_counted(config, metrics);
    tokio::spawn(near_end.await.unwrap().run());
}

fn arguments(dir: &Path, etcd: &str, tunnel: bool) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers={etcd}"),
        format!("--advertise-address={NEAR}"),
        format!("--secure-port={API_SERVER_PORT}"),
        format!("--tls-cert-file={}", file("api.crt")),
        format!("--tls-private-key-file={}", file("api.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("kubelet-client.crt")
        ),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ];
    if tunnel {
        let configuration = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
             connection:\n    proxyProtocol: HTTPConnect\n    transport:\n      uds:\n        udsName: {}\n",
            file("tunnel.sock")
        );
        std::fs::write(dir.join("egress.yaml"), configuration).unwrap();
        arguments.push(format!(
            "--egress-selector-config-file={}",
            file("egress.yaml")
        ));
    }
    arguments
}

fn run(program: &str, arguments: &str) {
    let done = Command::new(program)
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(done.success(), "{program} {arguments}");
}
