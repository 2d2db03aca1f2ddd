//! A kube-apiserver with its etcd on loopback: custom resources, CEL and server-side apply as they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stoker_pki::{
    Authority, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, ServiceAccountKey,
    kubeconfig,
};

use super::BareEtcd;
use super::guarded::Guarded;
use crate::credentials;
use crate::ports::free_port;
use crate::steps::Steps;
use crate::upstream::Upstream;
use crate::versions::{ETCD, KubernetesVersion, default_kubernetes};

/// A running API server without controllers or nodes; it ends when the value is dropped.
#[derive(Debug)]
pub struct BareApiServer {
    // Before its etcd, as fields are dropped in order.
    process: Guarded,
    etcd: BareEtcd,
    kubeconfig: String,
}

/// Where an API server listens, what it is, and whom it believes.
#[derive(Debug)]
pub struct ServerSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Range of its Services' addresses.
    pub service_cidr: String,
    /// Signs clients' certificates, and has signed `serving`.
    pub authority: Authority,
    /// The certificate it shows.
    pub serving: KeyedCertificate,
    /// A name in that certificate.
    pub serving_name: String,
    /// Signs tokens.
    pub service_account: ServiceAccountKey,
    /// Its `AuthorizationConfiguration`; RBAC alone when there is none.
    pub authorization: Option<PathBuf>,
}

impl BareApiServer {
    /// The default Kubernetes version.
    ///
    /// # Errors
    /// When it cannot be built, or is not ready within 60 s; the error has the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_version(default_kubernetes()).await
    }

    /// A version of the table.
    ///
    /// # Errors
    /// As [`BareApiServer::start`].
    pub async fn start_version(version: KubernetesVersion) -> Result<Self> {
        let authority = credentials::authority("bare-kubernetes")?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let serving =
            credentials::server(&authority, "kube-apiserver", &["localhost"], &[address])?;
        let key = ServiceAccountKey::generate().context("making the service-account key")?;
        let port = free_port()?;
        let settings = ServerSettings {
            address: SocketAddr::new(address, port),
            service_cidr: "10.0.0.0/20".to_owned(),
            authority,
            serving,
            serving_name: "localhost".to_owned(),
            service_account: key,
            authorization: None,
        };
        Self::start_with(version, settings).await
    }

    /// One that listens where it is told, with credentials that somebody else made.
    ///
    /// # Errors
    /// As [`BareApiServer::start`].
    pub async fn start_with(version: KubernetesVersion, settings: ServerSettings) -> Result<Self> {
        let binaries = Upstream::open(Steps::new())?.kubernetes(version).await?;
        let etcd = BareEtcd::start(ETCD).await?;
        let directory = etcd.directory().to_owned();
        let arguments = arguments(&directory, &settings, &etcd.endpoint());
        let kubeconfig = write_credentials(&directory, settings)?;
        let log = directory.join("kube-apiserver.log");
        let process = Guarded::start(&binaries.join("kube-apiserver"), &arguments, &log)?;
        let mut server = Self {
            process,
            etcd,
            kubeconfig,
        };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Kubeconfig of a `system:masters` administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// The etcd behind it.
    #[must_use]
    pub fn etcd(&self) -> &BareEtcd {
        &self.etcd
    }

    /// An administrator's client without retries.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn client(&self) -> Result<kube::Client> {
        credentials::kube_client(&self.kubeconfig).await
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let client = self.client().await?;
        loop {
            self.process.still_running().context("kube-apiserver")?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let Err(error) = client.request_text(request).await else {
                return Ok(());
            };
            ensure!(
                begun.elapsed() < Duration::from_mins(1),
                "kube-apiserver is not ready ({error}): {}",
                self.process.log_end()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn write_credentials(directory: &Path, settings: ServerSettings) -> Result<String> {
    let ServerSettings {
        address,
        authority,
        serving,
        serving_name,
        service_account,
        ..
    } = settings;
    credentials::write_authority(directory, "kubernetes-ca", &authority)?;
    credentials::write_leaf(directory, "kube-apiserver", &serving)?;
    credentials::write_service_account_key(directory, &service_account)?;
    let admin = credentials::client(&authority, "admin", Some("system:masters"))?;
    Ok(kubeconfig(&KubeconfigRequest {
        cluster: "bare".to_owned(),
        server: format!("https://{address}"),
        tls_server_name: Some(serving_name),
        authority: authority.certificate().to_owned(),
        user: "admin".to_owned(),
        credentials: KubeconfigCredentials::Inline(admin),
    }))
}

fn arguments(directory: &Path, settings: &ServerSettings, etcd: &str) -> Vec<String> {
    let address = settings.address;
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers={etcd}"),
        format!("--bind-address={}", address.ip()),
        format!("--advertise-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--tls-cert-file={}", file("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", file("kube-apiserver.key")),
        format!("--client-ca-file={}", file("kubernetes-ca.crt")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-cluster-ip-range={}", settings.service_cidr),
        match &settings.authorization {
            Some(path) => format!("--authorization-config={}", path.display()),
            None => "--authorization-mode=RBAC".to_owned(),
        },
        "--enable-bootstrap-token-auth=true".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        // As kubeadm has it, and kube-proxy needs it.
        "--allow-privileged=true".to_owned(),
        // Objects are made and removed by tests alone; no controller would clear this.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use kube::api::ObjectMeta;

    #[tokio::test]
    async fn an_administrator_can_write() {
        let server = BareApiServer::start().await.unwrap();
        let namespaces = Api::<Namespace>::all(server.client().await.unwrap());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some("made".into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&kube::api::PostParams::default(), &namespace)
            .await
            .unwrap();
        assert!(namespaces.get("made").await.is_ok());
    }
}
