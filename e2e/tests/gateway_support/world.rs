//! A management API server, tenants' API servers, and gateways between these and clients, with no rights but those of
//! `manifests/gateway.yaml`.

#[path = "../support/gateway.rs"]
mod gateway;
#[path = "../support/own_address.rs"]
mod own_address;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt};
use own_address::own_address;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_lab::bare::{BareApiServer, ServerSettings};
use stoker_lab::command::cargo;
use stoker_lab::credentials;
use stoker_lab::versions::default_kubernetes;
use stoker_pki::{
    Authority, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, ServiceAccountKey,
    kubeconfig,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tenants::smallest;

pub(crate) const DOMAIN: &str = "clusters.example.com";
const NAMESPACE: &str = "tenants";

/// The management cluster, without nodes.
pub(crate) struct Management {
    pub(crate) server: Option<BareApiServer>,
    client: Client,
    kubeconfig: tempfile::NamedTempFile,
}

/// A tenant: its identity, and its API servers.
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    pub(crate) host: String,
    authority: Authority,
    /// Each has a state of its own: what is asked of them here is the same for all.
    pub(crate) servers: Vec<(SocketAddr, BareApiServer)>,
}

/// A gateway; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    health: u16,
    process: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Management {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = BareApiServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let mut config: Value = serde_saphyr::from_str(server.kubeconfig()).unwrap();
        config["users"][0]["user"]["as"] = json!(gateway::ACCOUNT);
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        let management = Self {
            server: Some(server),
            client,
            kubeconfig,
        };
        management.create_crd().await;
        let namespaces: Api<Namespace> = Api::all(management.client.clone());
        for name in [NAMESPACE, "stoker-system"] {
            let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }));
            let params = PostParams::default();
            namespaces
                .create(&params, &namespace.unwrap())
                .await
                .unwrap();
        }
        gateway::create_roles(&management.client).await;
        management
    }

    async fn create_crd(&self) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let crd = TenantControlPlane::crd();
        crds.create(&PostParams::default(), &crd).await.unwrap();
        let tenants = self.tenants();
        until("the CRD is served", async || {
            tenants.list(&ListParams::default()).await.is_ok()
        })
        .await;
    }

    pub(crate) fn tenants(&self) -> Api<TenantControlPlane> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// What the operator writes of a tenant.
    pub(crate) async fn announce(&self, tenant: &Tenant) {
        let params = PatchParams::apply("test").force();
        let version = default_kubernetes().version;
        let object = smallest(tenant.name, version, "ClusterIP", &json!({}));
        let tenants = self.tenants();
        tenants
            .patch(tenant.name, &params, &Patch::Apply(object))
            .await
            .unwrap();
        let id = tenant.host.split('.').next().unwrap();
        let status = json!({ "status": { "storage": {
            "driver": "etcd", "dataStoreName": "default", "setup": { "schema": id, "user": id },
        }}});
        let status = Patch::Merge(status);
        let params = PatchParams::default();
        tenants
            .patch_status(tenant.name, &params, &status)
            .await
            .unwrap();
    }

    /// What the `EndpointSlice` controller writes of a tenant.
    pub(crate) async fn ready(&self, tenant: &Tenant, addresses: &[SocketAddr]) {
        let slices = Api::namespaced(self.client.clone(), NAMESPACE);
        for (number, (address, _)) in tenant.servers.iter().enumerate() {
            // One slice for each, as their ports differ.
            let name = format!("{}-{number}", tenant.name);
            let ready = addresses.contains(address);
            gateway::write_slice(&slices, &name, tenant.name, *address, ready).await;
        }
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn gateway(&self, port: u16, arguments: &[&str]) -> Gateway {
        let health = free_port();
        let process = Command::new(program("stoker-gateway"))
            .arg(format!("--base-domain={DOMAIN}"))
            .arg(format!("--listen=[::]:{port}"))
            .arg(format!("--health-bind-address=127.0.0.1:{health}"))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Gateway {
            port,
            health,
            process,
        };
        until("the gateway is ready", async || {
            gateway.is_ready().await == Some(true)
        })
        .await;
        gateway
    }
}

/// Builds the gateway where the test run did not.
pub(crate) fn build() {
    let packages = ["--package", "stoker-gateway", "--package", "stoker-node"];
    let built = cargo(["build", "--quiet"].into_iter().chain(packages)).status();
    assert!(built.unwrap().success());
}

/// Where `name` was built.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join(name)
}

impl Tenant {
    /// One of this many API servers.
    pub(crate) async fn start(name: &'static str, number: u8, servers: usize) -> Self {
        let host = format!("{number:032x}.{DOMAIN}");
        let authority = credentials::authority(name).unwrap();
        let mut tenant = Self {
            name,
            host,
            authority,
            servers: Vec::new(),
        };
        let starting = (0..servers).map(|_| tenant.start_server());
        let servers = futures::future::join_all(starting).await;
        tenant.servers = servers;
        tenant
    }

    async fn start_server(&self) -> (SocketAddr, BareApiServer) {
        let address = SocketAddr::new(own_address(), free_port());
        let names = [self.host.as_str(), "localhost"];
        let serving =
            credentials::server(&self.authority, "kube-apiserver", &names, &[address.ip()]);
        let pem = (self.authority.certificate(), self.authority.key().as_pem());
        let settings = ServerSettings {
            address,
            service_cidr: "10.0.0.0/20".to_owned(),
            authority: Authority::from_pem(pem.0, pem.1).unwrap(),
            serving: serving.unwrap(),
            serving_name: self.host.clone(),
            service_account: ServiceAccountKey::generate().unwrap(),
            authorization: None,
        };
        let server = BareApiServer::start_with(default_kubernetes(), settings);
        (address, server.await.unwrap())
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|(address, _)| *address).collect()
    }

    fn user(&self, user: &str) -> KeyedCertificate {
        credentials::client(&self.authority, user, Some("system:masters")).unwrap()
    }

    /// A client with a certificate of this tenant that believes the API server of `other`, at `address`.
    pub(crate) async fn client_of(&self, other: &Self, address: &str) -> Client {
        self.client_that_says(&other.host, other, address).await
    }

    /// One that asks for `name`.
    pub(crate) async fn client_that_says(&self, name: &str, other: &Self, address: &str) -> Client {
        let text = kubeconfig(&KubeconfigRequest {
            cluster: other.name.to_owned(),
            server: format!("https://{address}"),
            tls_server_name: Some(name.to_owned()),
            authority: other.authority.certificate().to_owned(),
            user: "admin".to_owned(),
            credentials: KubeconfigCredentials::Inline(self.user(self.name)),
        });
        credentials::kube_client(&text).await.unwrap()
    }

    /// Its own administrator, at `address`.
    pub(crate) async fn client(&self, address: &str) -> Client {
        self.client_of(self, address).await
    }

    /// TLS with its administrator's certificate.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let user = self.user(self.name);
        let mut roots = RootCertStore::empty();
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        roots
            .add(certificate(self.authority.certificate()))
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(user.key.as_pem().as_bytes()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = config.with_client_auth_cert(vec![certificate(&user.certificate)], key);
        Arc::new(config.unwrap())
    }
}

/// Who an API server takes the client for.
pub(crate) async fn who(client: &Client) -> Result<String, kube::Error> {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .unwrap();
    let answer: Value = client.request(request).await?;
    Ok(answer["status"]["userInfo"]["username"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

pub(crate) async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

impl Gateway {
    pub(crate) fn at(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn is_ready(&self) -> Option<bool> {
        gateway::is_ready(self.health).await
    }

    /// The value of a series.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        gateway::metric(self.health, series).await
    }

    pub(crate) fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }
}

pub(crate) fn free_port() -> u16 {
    stoker_lab::ports::free_port().unwrap()
}

pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "not within 20 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
