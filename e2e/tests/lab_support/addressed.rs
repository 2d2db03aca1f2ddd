//! Every place that says where a tenant is reached, looked at through a way to it that does not change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;

use crate::pods::{restarts, uids};
use crate::world::{World, eventually, text};

/// A kubelet shows its pods a changed Secret after a minute and a half at most.
const RELOADED: Duration = Duration::from_mins(2);

/// A tenant whose addresses change.
pub(crate) struct Addressed<'a> {
    world: &'a World,
    name: &'a str,
    /// A client for the tenant's Service in the management cluster.
    pub(crate) inside: Client,
    ca: String,
    /// Pods, restarts, and how often the Deployment was changed.
    control_plane: (Vec<String>, i32, Option<i64>),
}

impl<'a> Addressed<'a> {
    /// Of a tenant that is Ready.
    pub(crate) async fn of(world: &'a World, name: &'a str) -> Result<Self> {
        let secrets = world.secrets(name);
        let ca = secrets.get(&format!("{name}-ca")).await?;
        let admin = secrets.get(&format!("{name}-admin-kubeconfig")).await?;
        let spec = service(world, name).await?.spec.context("no Service")?;
        let cluster_ip: IpAddr = spec.cluster_ip.context("no cluster IP")?.parse()?;
        let kubeconfig = Kubeconfig::from_yaml(&text(&admin, "admin.conf")?)?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.cluster_url = format!("https://{}", SocketAddr::new(cluster_ip, 6443)).parse()?;
        config.tls_server_name = Some("kubernetes".to_owned());
        Ok(Self {
            world,
            name,
            inside: Client::try_from(config)?,
            ca: text(&ca, "ca.crt")?,
            control_plane: control_plane(world, name).await?,
        })
    }

    /// What its load balancer publishes.
    pub(crate) async fn published(&self) -> Result<Vec<IpAddr>> {
        published(self.world, self.name).await
    }

    /// Its load balancer has this address from now on, and no longer another of that family.
    pub(crate) async fn move_to(&self, address: IpAddr) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.world.management.clone(), self.name);
        let patch = json!({ "spec": { "loadBalancerIP": address } });
        let params = PatchParams::default();
        services
            .patch(self.name, &params, &Patch::Merge(patch))
            .await?;
        eventually(
            Duration::from_secs(20),
            "the load balancer moves",
            async || {
                let found = self.published().await?;
                ensure!(found.contains(&address), "it publishes {found:?}");
                Ok(())
            },
        )
        .await
    }

    /// Waits until whoever connects to the address, and expects that address or name there, finds it in the serving
    /// certificate.
    pub(crate) async fn serves(&self, address: IpAddr, host: &str) -> Result<()> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes())?)?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(host.to_owned())?;
        let what = format!("the certificate at {address} is for {host}");
        eventually(RELOADED, &what, async || {
            let stream = TcpStream::connect((address, 6443)).await?;
            connector.connect(name.clone(), stream).await?;
            Ok(())
        })
        .await
    }

    /// Waits until the tenant's own pods are told these addresses, by slice.
    pub(crate) async fn slices(&self, wanted: &[(&str, &[IpAddr])]) -> Result<()> {
        let texts = |list: &[IpAddr]| list.iter().map(IpAddr::to_string).collect();
        let wanted: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|(name, addresses)| ((*name).to_owned(), texts(addresses)))
            .collect();
        let slices: Api<EndpointSlice> = Api::namespaced(self.inside.clone(), "default");
        let ours = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        let what = format!("the tenant's slices are {wanted:?}");
        eventually(Duration::from_secs(30), &what, async || {
            let addresses = |slice: EndpointSlice| {
                let endpoints = slice.endpoints.iter();
                let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.clone());
                (slice.name_any(), addresses.collect())
            };
            let found = slices.list(&ours).await?.into_iter().map(addresses);
            let found: BTreeMap<String, Vec<String>> = found.collect();
            ensure!(found == wanted, "they are {found:?}");
            Ok(())
        })
        .await
    }

    /// Waits until status, the administrator's kubeconfig and what joining nodes read name this endpoint, `host:port`.
    pub(crate) async fn named_everywhere(&self, endpoint: &str) -> Result<()> {
        let what = format!("every place names {endpoint}");
        eventually(Duration::from_secs(30), &what, async || {
            let status = self.world.status(self.name).await?;
            let found = status.control_plane_endpoint.unwrap_or_default();
            ensure!(found == endpoint, "status names {found}");
            let secret = format!("{}-admin-kubeconfig", self.name);
            let secret = self.world.secrets(self.name).get(&secret).await?;
            let url = format!("https://{endpoint}");
            let cluster_info = ("kube-public", "cluster-info", "kubeconfig");
            let kubeadm = ("kube-system", "kubeadm-config", "ClusterConfiguration");
            for (place, said, wanted) in [
                ("the kubeconfig", text(&secret, "admin.conf")?, url.as_str()),
                ("cluster-info", self.config_map(cluster_info).await?, &url),
                ("kubeadm-config", self.config_map(kubeadm).await?, endpoint),
            ] {
                let mut lines = said.lines().map(|line| line.replace(['"', '\''], ""));
                let names = |line: String| line.ends_with(&format!(": {wanted}"));
                ensure!(lines.any(names), "{place} does not name {wanted}: {said}");
            }
            Ok(())
        })
        .await
    }

    /// Fails when a container of the control plane was restarted or a pod replaced since [`Addressed::of`].
    pub(crate) async fn restarted_nothing(&self) -> Result<()> {
        let now = control_plane(self.world, self.name).await?;
        let before = &self.control_plane;
        ensure!(
            now == *before,
            "the control plane was {before:?}, is {now:?}"
        );
        Ok(())
    }

    async fn config_map(&self, (namespace, name, entry): (&str, &str, &str)) -> Result<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.inside.clone(), namespace);
        let data = maps.get(name).await?.data.unwrap_or_default();
        let found = data.get(entry);
        found
            .cloned()
            .with_context(|| format!("no {entry} in {name}"))
    }
}

/// What the load balancer of a tenant publishes.
pub(crate) async fn published(world: &World, name: &str) -> Result<Vec<IpAddr>> {
    let status = service(world, name).await?.status.unwrap_or_default();
    let ingress = status.load_balancer.unwrap_or_default().ingress;
    let addresses = ingress.into_iter().flatten().filter_map(|point| point.ip);
    addresses.map(|address| Ok(address.parse()?)).collect()
}

async fn service(world: &World, name: &str) -> Result<Service> {
    let services: Api<Service> = Api::namespaced(world.management.clone(), name);
    services.get(name).await.context("reading the Service")
}

async fn control_plane(world: &World, name: &str) -> Result<(Vec<String>, i32, Option<i64>)> {
    let deployments: Api<Deployment> = Api::namespaced(world.management.clone(), name);
    let generation = deployments.get(name).await?.metadata.generation;
    let pods = world.pods(name).await?;
    Ok((uids(&pods), restarts(&pods), generation))
}
