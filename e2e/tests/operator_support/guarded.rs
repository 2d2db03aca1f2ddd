//! The tenant `one` in the namespace `a` with an API server, the guard beside it and somebody who does what a kubelet
//! does: shows the API server its files, and newer ones when the pod is annotated.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use stoker_lab::bare::BareApiServer;
use stoker_lab::credentials;
use stoker_lab::ports::free_ports;
use stoker_lab::versions::KubernetesVersion;
use stoker_pki::Authority;
use tokio::task::JoinHandle;

use super::bare::{Bare, built, until};
use super::bare_pod::announce;
use super::tenant_server::{self, PORT};

const AUTHORIZATION: &str = "authorization-config.yaml";
const GUARD: &str = "guard.conf";
/// Only of tenants that sleep when idle.
const ACTIVITY: &str = "activity.conf";
/// What the operator sets to have a kubelet look.
const REFRESHED: &str = "stoker.dev/secrets-refreshed";

pub(crate) struct Guarded {
    pub(crate) api_server: BareApiServer,
    address: SocketAddr,
    guard: Guard,
    authority: Authority,
    _kubelet: JoinHandle<()>,
    _files: tempfile::TempDir,
}

/// The warden's process, and where its guard listens.
struct Guard {
    process: Option<Child>,
    ports: [u16; 2],
}

/// A projected volume as a kubelet makes it: files are links into a directory that is replaced as a whole.
struct Volume {
    root: PathBuf,
    guard: u16,
    generation: u32,
}

impl Guarded {
    /// `second` is the second number of its address, of this test alone.
    pub(crate) async fn start(bare: &Bare, version: KubernetesVersion, second: u8) -> Self {
        Self::start_with(bare, version, second, json!({})).await
    }

    /// The same with a spec changed by `change`.
    pub(crate) async fn start_with(
        bare: &Bare,
        version: KubernetesVersion,
        second: u8,
        change: Value,
    ) -> Self {
        bare.tenant("a", "one", change).await;
        bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
            .await;
        let mut guard = Guard {
            process: None,
            ports: free_ports().unwrap(),
        };
        guard.start();
        let files = tempfile::tempdir().unwrap();
        let mut volume = Volume {
            root: files.path().to_owned(),
            guard: guard.ports[0],
            generation: 0,
        };
        volume.show(&config(&bare.client).await);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, second, high, low));
        let address = SocketAddr::new(address, PORT);
        let path = Some(files.path().join(AUTHORIZATION));
        let api_server = tenant_server::start_with(bare, "a", address, version, path).await;
        announce(bare, "a", "one-pod", address.ip()).await;
        bare.tenant_reason("a", "one", "Ready", "Available").await;
        let data = bare.secrets("a").get("one-ca").await.unwrap().data.unwrap();
        let text = |entry: &str| String::from_utf8(data[entry].0.clone()).unwrap();
        Self {
            api_server,
            address,
            guard,
            authority: Authority::from_pem(&text("ca.crt"), &text("ca.key")).unwrap(),
            _kubelet: tokio::spawn(kubelet(bare.client.clone(), volume)),
            _files: files,
        }
    }

    pub(crate) fn stop_guard(&mut self) {
        self.guard.stop();
    }

    pub(crate) fn start_guard(&mut self) {
        self.guard.start();
    }

    /// Proportional set size of the warden in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let id = self.guard.process.as_ref().unwrap().id();
        let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A client of somebody with a certificate of the tenant's authority.
    pub(crate) async fn user(&self, name: &str, group: &str) -> Client {
        self.impersonating(name, group, None, &[]).await
    }

    /// The tenant's administrator.
    pub(crate) async fn admin(&self) -> Client {
        self.user("kubernetes-admin", "kubeadm:cluster-admins")
            .await
    }

    /// The tenant's administrator as somebody else.
    pub(crate) async fn admin_as(&self, user: &str, groups: &[&str]) -> Client {
        let admin = ("kubernetes-admin", "kubeadm:cluster-admins");
        self.impersonating(admin.0, admin.1, Some(user), groups)
            .await
    }

    /// A client with a token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        let mut config = kube::Config::new(format!("https://{}", self.address).parse().unwrap());
        let pem = self.authority.certificate().as_bytes();
        let der: rustls::pki_types::CertificateDer<'static> =
            rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap();
        config.root_cert = Some(vec![der.to_vec()]);
        config.tls_server_name = Some("one.a.svc".to_owned());
        config.auth_info.token = Some(token.to_owned().into());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    async fn impersonating(
        &self,
        name: &str,
        group: &str,
        user: Option<&str>,
        groups: &[&str],
    ) -> Client {
        let leaf = credentials::client(&self.authority, name, Some(group)).unwrap();
        let server = format!("https://{}", self.address);
        let text = credentials::kubeconfig_text("one", &server, &self.authority, name, leaf);
        let mut parsed = Kubeconfig::from_yaml(&text).unwrap();
        let info = parsed.auth_infos[0].auth_info.as_mut().unwrap();
        info.impersonate = user.map(str::to_owned);
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        info.impersonate_groups = (!groups.is_empty()).then_some(groups);
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(parsed, &options)
            .await
            .unwrap();
        config.default_retry = false;
        config.tls_server_name = Some("one.a.svc".to_owned());
        Client::try_from(config).unwrap()
    }
}

/// Sets `spec.writePermissions`; returns how long it took until the condition has this reason.
pub(crate) async fn permit(bare: &Bare, blocked: Value, reason: &str) -> Duration {
    let patch = json!({ "spec": { "writePermissions": blocked } });
    let tenants = bare.tenants("a");
    let begun = Instant::now();
    let patched = tenants
        .patch("one", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    until(&format!("writePermissions are {reason}"), async || {
        let tenant = tenants.get("one").await.unwrap();
        let conditions = tenant.status.unwrap().conditions;
        conditions.iter().any(|found| {
            found.type_ == "WritePermissionsApplied"
                && found.reason == reason
                && found.observed_generation == patched.metadata.generation
        })
    })
    .await;
    begun.elapsed()
}

impl Guard {
    fn start(&mut self) {
        let [guard, health] = self.ports;
        let process = Command::new(built("stoker-warden"))
            .arg(format!("--guard-address=127.0.0.1:{guard}"))
            .arg(format!("--health-port={health}"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", guard)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(5), "no guard");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Volume {
    fn show(&mut self, config: &ConfigMap) {
        let before = self.root.join(format!("..{}", self.generation));
        self.generation += 1;
        let name = format!("..{}", self.generation);
        let directory = self.root.join(&name);
        std::fs::create_dir(&directory).unwrap();
        for entry in [AUTHORIZATION, GUARD, ACTIVITY] {
            let Some(text) = config.data.as_ref().unwrap().get(entry) else {
                continue;
            };
            let text = text
                .replace("/etc/kubernetes", &self.root.display().to_string())
                .replace("127.0.0.1:10270", &format!("127.0.0.1:{}", self.guard));
            std::fs::write(directory.join(entry), text).unwrap();
            let link = self.root.join(entry);
            if !link.is_symlink() {
                let target = Path::new("..data").join(entry);
                std::os::unix::fs::symlink(target, link).unwrap();
            }
        }
        let next = self.root.join("..data_tmp");
        std::os::unix::fs::symlink(&name, &next).unwrap();
        std::fs::rename(&next, self.root.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(before);
    }
}

async fn config(client: &Client) -> ConfigMap {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "a");
    maps.get("one-control-plane-config").await.unwrap()
}

/// Shows the files anew whenever the pod is told to.
async fn kubelet(client: Client, mut volume: Volume) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    let mut seen = None;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Ok(pod) = pods.get("one-pod").await else {
            continue;
        };
        let told = pod.annotations().get(REFRESHED).cloned();
        if told != seen {
            volume.show(&config(&client).await);
            seen = told;
        }
    }
}
