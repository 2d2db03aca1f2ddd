//! A tenant control plane without Stoker: what a careful person would write by hand, and what benchmarks
//! compare the product with.
//!
//! Certificates, the etcd user with its prefix and all objects are made before the clock starts; then the
//! objects are created at once and `/readyz` is asked every 20 ms.

mod objects;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use stoker_pki::{
    Authority, KubeconfigCredentials, KubeconfigRequest, ServiceAccountKey, kubeconfig,
};

use crate::command::run;
use crate::credentials::{self, client, kube_client, server};
use crate::etcd::EtcdAccess;
use crate::lab::Lab;

/// Name of the API server in its certificate, whatever its address.
const SERVER_NAME: &str = "kubernetes";
/// How often `/readyz` is asked.
const POLL: Duration = Duration::from_millis(20);

/// A tenant that is ready to be applied.
pub struct Handwritten {
    name: String,
    namespace: String,
    management: kube::Client,
    pool: EtcdAccess,
    secret: Secret,
    service: Service,
    deployment: Deployment,
    authority: Authority,
}

/// When things happened, since the objects began to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// All objects were created.
    pub applied: Duration,
    /// The pod had an address.
    pub address: Duration,
    /// `/readyz` answered with 200.
    pub ready: Duration,
}

impl Handwritten {
    /// Makes the namespace `handwritten-<name>`, the etcd user, role and prefix, and every certificate.
    ///
    /// # Errors
    /// When the lab is not up, or a tenant of that name is there already.
    pub async fn prepare(lab: &Lab, name: &str) -> Result<Self> {
        let management = lab.management_client().await?;
        let pool = lab.pool().await?;
        let namespace = format!("handwritten-{name}");
        grant_prefix(&pool, &namespace)
            .await
            .context("preparing the tenant's place in etcd")?;
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let namespaces = Api::<Namespace>::all(management.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .context("making the namespace")?;
        let authority = credentials::authority("kubernetes")?;
        let secret = objects::secret(&namespace, &certificates(lab, &authority, &namespace)?);
        Ok(Self {
            name: name.to_owned(),
            secret: serde_json::from_value(secret)?,
            service: serde_json::from_value(objects::service(&namespace))?,
            deployment: serde_json::from_value(objects::deployment(lab, &namespace))?,
            namespace,
            management,
            pool,
            authority,
        })
    }

    /// Name that it was prepared under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace of its objects on the management cluster.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Creates Secret, Service and Deployment concurrently and returns how long that took.
    ///
    /// # Errors
    /// What the management API server says.
    pub async fn apply(&self) -> Result<Duration> {
        let begun = Instant::now();
        let create = PostParams::default();
        let secrets = Api::<Secret>::namespaced(self.management.clone(), &self.namespace);
        let services = Api::<Service>::namespaced(self.management.clone(), &self.namespace);
        let deployments = Api::<Deployment>::namespaced(self.management.clone(), &self.namespace);
        tokio::try_join!(
            async { secrets.create(&create, &self.secret).await.map(drop) },
            async { services.create(&create, &self.service).await.map(drop) },
            async {
                deployments
                    .create(&create, &self.deployment)
                    .await
                    .map(drop)
            },
        )
        .context("creating a hand-written tenant")?;
        Ok(begun.elapsed())
    }

    /// Waits until the tenant's `/readyz` answers on its pod's address, asked from this machine.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(Duration, Duration)> {
        let begun = Instant::now();
        let late = || format!("{} is not ready after {limit:?}", self.namespace);
        let address = loop {
            if let Some(address) = self.pod_address().await? {
                break address;
            }
            ensure!(begun.elapsed() < limit, late());
            tokio::time::sleep(POLL).await;
        };
        let addressed = begun.elapsed();
        let tenant = kube_client(&self.kubeconfig(&address)?).await?;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            if tenant.request_text(request).await.is_ok() {
                return Ok((addressed, begun.elapsed()));
            }
            ensure!(begun.elapsed() < limit, late());
            tokio::time::sleep(POLL).await;
        }
    }

    /// [`Handwritten::apply`] and [`Handwritten::wait_ready`], timed together.
    ///
    /// # Errors
    /// As both.
    pub async fn birth(&self, limit: Duration) -> Result<Birth> {
        let applied = self.apply().await?;
        let (address, ready) = self.wait_ready(limit).await?;
        Ok(Birth {
            applied,
            address: applied + address,
            ready: applied + ready,
        })
    }

    /// An administrator's kubeconfig for the API server at an address.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn kubeconfig(&self, address: &str) -> Result<String> {
        let admin = client(&self.authority, "admin", Some("system:masters"))?;
        Ok(kubeconfig(&KubeconfigRequest {
            cluster: self.namespace.clone(),
            server: format!("https://{address}:6443"),
            tls_server_name: Some(SERVER_NAME.to_owned()),
            authority: self.authority.certificate().to_owned(),
            user: "admin".to_owned(),
            credentials: KubeconfigCredentials::Inline(admin),
        }))
    }

    /// Address of the tenant's pod; `None` while it has none.
    ///
    /// # Errors
    /// What the management API server says.
    pub async fn pod_address(&self) -> Result<Option<String>> {
        let pods = Api::<Pod>::namespaced(self.management.clone(), &self.namespace);
        let pods = pods
            .list(&ListParams::default())
            .await
            .context("listing the tenant's pods")?;
        Ok(pods.items.into_iter().find_map(|pod| pod.status?.pod_ip))
    }

    /// Removes the namespace with all in it, waits until it is gone, and removes user, role and keys in etcd.
    ///
    /// # Errors
    /// When the namespace is still there after two minutes, or what etcd says.
    pub async fn remove(self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.management.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        let begun = Instant::now();
        while namespaces.get_opt(&self.namespace).await?.is_some() {
            ensure!(
                begun.elapsed() < Duration::from_mins(2),
                "{} does not go",
                self.namespace
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let prefix = objects::prefix(&self.namespace);
        run(self.pool.etcdctl().args(["del", "--prefix", &prefix])).await?;
        run(self
            .pool
            .etcdctl()
            .args(["user", "delete", &self.namespace]))
        .await?;
        run(self
            .pool
            .etcdctl()
            .args(["role", "delete", &self.namespace]))
        .await
        .map(drop)
    }
}

/// A user and a role of the tenant's name, which may only touch the tenant's prefix.
async fn grant_prefix(pool: &EtcdAccess, name: &str) -> Result<()> {
    let prefix = objects::prefix(name);
    let grant = [
        "role",
        "grant-permission",
        name,
        "readwrite",
        "--prefix",
        &prefix,
    ];
    for arguments in [
        &["user", "add", name, "--no-password"][..],
        &["role", "add", name],
        &grant,
        &["user", "grant-role", name, name],
    ] {
        run(pool.etcdctl().args(arguments)).await?;
    }
    Ok(())
}

/// Everything that the pod mounts, by file name.
fn certificates(lab: &Lab, ca: &Authority, name: &str) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut add = |file: &str, text: &str| files.push((file.to_owned(), text.to_owned()));
    let names = [
        SERVER_NAME,
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    let api_server = server(
        ca,
        "kube-apiserver",
        &names,
        &["127.0.0.1".parse()?, "10.96.0.1".parse()?],
    )?;
    let kubelet = client(ca, "kube-apiserver-kubelet-client", Some("system:masters"))?;
    let front_proxy_ca = credentials::authority("front-proxy-ca")?;
    let front_proxy = client(&front_proxy_ca, "front-proxy-client", None)?;
    let pool = credentials::read_authority(&lab.paths().pool_pki(), "ca")?;
    let etcd = client(&pool, name, None)?;
    add("etcd-ca.crt", pool.certificate());
    add("front-proxy-ca.crt", front_proxy_ca.certificate());
    add("ca.crt", ca.certificate());
    add("ca.key", ca.key().as_pem());
    let leaves = [
        ("apiserver", &api_server),
        ("kubelet-client", &kubelet),
        ("front-proxy-client", &front_proxy),
        ("etcd-client", &etcd),
    ];
    for (file, leaf) in leaves {
        add(&format!("{file}.crt"), &leaf.certificate);
        add(&format!("{file}.key"), leaf.key.as_pem());
    }
    let key = ServiceAccountKey::generate().context("making the service-account key")?;
    add("sa.pub", key.public_pem());
    add("sa.key", key.private_pem().as_pem());
    for component in ["kube-controller-manager", "kube-scheduler"] {
        let user = format!("system:{component}");
        let leaf = client(ca, &user, None)?;
        let url = "https://localhost:6443";
        add(
            component,
            &credentials::kubeconfig_text("tenant", url, ca, &user, leaf),
        );
    }
    Ok(files)
}
