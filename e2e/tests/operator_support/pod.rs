//! The API server of the tenant `one` in the namespace `a` as its Deployment has it: every flag and every file is the
//! operator's. It has no node: it runs at a loopback address, where a Pod object has the operator find it, and what a
//! kubelet would do with its files is done here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret, VolumeProjection};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use stoker_lab::bare::{BareContainer, ContainerFiles, MountedFiles};
use stoker_lab::credentials;
use stoker_lab::versions::KubernetesVersion;
use stoker_pki::{Authority, KubeconfigCredentials, KubeconfigRequest, kubeconfig};
use tokio::task::JoinHandle;

use super::bare::{Bare, until};
use super::bare_pod::announce;

/// Where API servers listen, and the operator dials them.
const PORT: u16 = 6443;
const NAMESPACE: &str = "a";

/// A running API server.
pub(crate) struct TenantPod {
    pub(crate) container: BareContainer,
    pub(crate) address: IpAddr,
    /// Of a `system:masters` administrator.
    pub(crate) inside: Client,
    authority: String,
    kubelet: JoinHandle<()>,
}

impl Drop for TenantPod {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

impl TenantPod {
    /// Starts it; `second` is the second number of its address, of this test alone.
    pub(crate) async fn start(bare: &Bare, version: KubernetesVersion, second: u8) -> Self {
        let pod = Self::launch(bare, version, second, "one-pod").await;
        bare.tenant_reason(NAMESPACE, "one", "APIServerAvailable", "Answering")
            .await;
        pod
    }

    /// The same without a wait for the operator, with a name for the Pod.
    pub(crate) async fn launch(
        bare: &Bare,
        version: KubernetesVersion,
        second: u8,
        name: &str,
    ) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, second, high, low));
        let spec = template(&bare.client).await;
        let arguments = spec.containers[0].args.clone().unwrap();
        let files = mounted(&bare.client, &spec).await;
        let started = BareContainer::start(version, &arguments, &files, address).await;
        let mut container = started.unwrap();
        let secret = bare.secrets(NAMESPACE).get("one-ca").await.unwrap();
        let text = |entry: &str| {
            let data = secret.data.as_ref().unwrap();
            String::from_utf8(data[entry].0.clone()).unwrap()
        };
        let authority = Authority::from_pem(&text("ca.crt"), &text("ca.key")).unwrap();
        let admin = credentials::client(&authority, "admin", Some("system:masters")).unwrap();
        let inside = client(address, &text("ca.crt"), admin).await;
        ready(&mut container, &inside).await;
        let kubelet = kubelet(bare, container.files());
        announce(bare, "a", name, address).await;
        Self {
            container,
            address,
            inside,
            authority: text("ca.crt"),
            kubelet,
        }
    }

    /// A client with a token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        let uri = format!("https://{}:{PORT}", self.address).parse().unwrap();
        let mut config = kube::Config::new(uri);
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(self.authority.as_bytes());
        let der: rustls::pki_types::CertificateDer<'static> = der.unwrap();
        config.root_cert = Some(vec![der.to_vec()]);
        config.tls_server_name = Some(format!("one.{NAMESPACE}.svc"));
        config.auth_info.token = Some(token.to_owned().into());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }
}

/// Waits until an API server that was just started answers.
pub(crate) async fn ready(container: &mut BareContainer, inside: &Client) {
    for attempt in 0.. {
        if let Err(error) = container.still_running() {
            panic!("{error:?}");
        }
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        if inside.request_text(request).await.is_ok() {
            break;
        }
        assert!(attempt < 600, "not ready: {}", container.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn client(address: IpAddr, authority: &str, admin: stoker_pki::KeyedCertificate) -> Client {
    let text = kubeconfig(&KubeconfigRequest {
        cluster: "one".to_owned(),
        server: format!("https://{address}:{PORT}"),
        tls_server_name: Some(format!("one.{NAMESPACE}.svc")),
        authority: authority.to_owned(),
        user: "admin".to_owned(),
        credentials: KubeconfigCredentials::Inline(admin),
    });
    credentials::kube_client(&text).await.unwrap()
}

/// The pod template that the operator wants now.
pub(crate) async fn template(client: &Client) -> PodSpec {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let deployment = deployments.get("one").await.unwrap();
    deployment.spec.unwrap().template.spec.unwrap()
}

/// What the first container mounts, as the management cluster has it now.
async fn mounted(client: &Client, spec: &PodSpec) -> MountedFiles {
    let mut files = MountedFiles::new();
    for mount in spec.containers[0].volume_mounts.iter().flatten() {
        let mut volumes = spec.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name).unwrap();
        let place = files.entry(mount.mount_path.clone()).or_default();
        let projected = volume.projected.iter();
        let projected = projected.flat_map(|projected| projected.sources.iter().flatten());
        for source in projected {
            place.extend(entries(client, source).await);
        }
    }
    files
}

async fn entries(client: &Client, source: &VolumeProjection) -> BTreeMap<String, Vec<u8>> {
    let (items, data) = if let Some(from) = &source.secret {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let data = secrets.get(&from.name).await.unwrap().data;
        let bytes = data
            .unwrap()
            .into_iter()
            .map(|(name, bytes)| (name, bytes.0));
        (from.items.clone(), bytes.collect::<BTreeMap<_, _>>())
    } else {
        let from = source.config_map.as_ref().unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let data = maps.get(&from.name).await.unwrap().data;
        let bytes = data
            .unwrap()
            .into_iter()
            .map(|(name, text)| (name, text.into_bytes()));
        (from.items.clone(), bytes.collect())
    };
    let items = items.unwrap().into_iter();
    items
        .map(|item| (item.path, data[&item.key].clone()))
        .collect()
}

/// Shows changed files within half a second, where a real one takes up to 90.
fn kubelet(bare: &Bare, files: ContainerFiles) -> JoinHandle<()> {
    let management = bare.client.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let spec = template(&management).await;
            files.show(&mounted(&management, &spec).await).unwrap();
        }
    })
}

/// Changes the tenant's spec by a JSON merge patch.
pub(crate) async fn change(bare: &Bare, spec: serde_json::Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let params = PatchParams::default();
    let tenants = bare.tenants(NAMESPACE);
    tenants.patch("one", &params, &patch).await.unwrap();
}

/// Makes the tenant with a change of the smallest spec, and waits until it is applied.
pub(crate) async fn born(bare: &Bare, version: KubernetesVersion, spec: serde_json::Value) {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace(NAMESPACE).await;
    let mut all = json!({ "kubernetes": { "version": version.version } });
    json_patch::merge(&mut all, &spec);
    bare.tenant(NAMESPACE, "one", all).await;
    bare.tenant_reason(NAMESPACE, "one", "ControlPlaneApplied", "Applied")
        .await;
    until("the Deployment is there", async || {
        let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), NAMESPACE);
        deployments.get_opt("one").await.unwrap().is_some()
    })
    .await;
}

/// How often the pods were replaced, counting from 1.
pub(crate) async fn generation(bare: &Bare) -> i64 {
    let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), NAMESPACE);
    let deployment = deployments.get("one").await.unwrap();
    deployment.metadata.generation.unwrap()
}
