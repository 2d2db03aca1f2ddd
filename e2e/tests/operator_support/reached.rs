//! A tenant `one` in the namespace `a` and every place that says where it is reached. Its API server has no node: it
//! runs at a loopback address, where a Pod object has the operator find it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use stoker_lab::bare::BareApiServer;

use super::bare::{Bare, until};
use super::bare_pod::announce;
use super::tenant_server::{self, PORT};

pub(crate) struct Reached<'a> {
    bare: &'a Bare,
    inside: Client,
    _api_server: BareApiServer,
}

impl<'a> Reached<'a> {
    /// Starts the tenant's API server; `second` is the second number of its address, of this test alone.
    pub(crate) async fn start(bare: &'a Bare, second: u8) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, second, high, low));
        let api_server = tenant_server::start(bare, "a", SocketAddr::new(address, PORT)).await;
        let inside = api_server.client().await.unwrap();
        announce(bare, "a", "one-pod", address).await;
        bare.tenant_reason("a", "one", "APIServerAvailable", "Answering")
            .await;
        Self {
            bare,
            inside,
            _api_server: api_server,
        }
    }

    /// A condition as `reason: message`, once it is there.
    pub(crate) async fn condition(&self, name: &str) -> String {
        let tenants = self.bare.tenants("a");
        let status = tenants.get("one").await.unwrap().status.unwrap();
        let found = status.conditions.iter().find(|found| found.type_ == name);
        found.map_or_else(String::new, |found| {
            format!("{}: {}", found.reason, found.message)
        })
    }

    /// The load balancer publishes this.
    pub(crate) async fn published(&self, ingress: Value) {
        let services: Api<Service> = Api::namespaced(self.bare.client.clone(), "a");
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        let (params, status) = (PatchParams::default(), Patch::Merge(status));
        services
            .patch_status("one", &params, &status)
            .await
            .unwrap();
    }

    /// Waits until every place names the endpoint, and the serving certificate is for the host.
    pub(crate) async fn everywhere(&self, endpoint: &str, host: &str) {
        let url = format!("server: https://{endpoint}");
        let says = |text: Option<String>, wanted: &str| {
            text.is_some_and(|text| {
                text.replace('"', "")
                    .lines()
                    .any(|line| line.trim().trim_start_matches("- ").ends_with(wanted))
            })
        };
        until(&format!("status names {endpoint}"), async || {
            let tenant = self.bare.tenants("a").get("one").await.unwrap();
            tenant.status.unwrap().control_plane_endpoint.as_deref() == Some(endpoint)
        })
        .await;
        until(&format!("the kubeconfig names {endpoint}"), async || {
            says(
                self.secret("one-admin-kubeconfig", "admin.conf").await,
                &url,
            )
        })
        .await;
        let wanted = format!("controlPlaneEndpoint: {endpoint}");
        let outside = &self.bare.client;
        until(
            &format!("the kubeadm configuration names {endpoint}"),
            async || {
                let text =
                    config_map(outside, "a", "one-kubeadmconfig", "ClusterConfiguration").await;
                says(text, &wanted)
            },
        )
        .await;
        self.serves(host).await;
        until(&format!("kubeadm-config names {endpoint}"), async || {
            let text = config_map(
                &self.inside,
                "kube-system",
                "kubeadm-config",
                "ClusterConfiguration",
            );
            says(text.await, &wanted)
        })
        .await;
        until(&format!("cluster-info names {endpoint}"), async || {
            let text = config_map(&self.inside, "kube-public", "cluster-info", "kubeconfig");
            says(text.await, &url)
        })
        .await;
    }

    /// Waits until the serving certificate is for the host.
    pub(crate) async fn serves(&self, host: &str) {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        until(&format!("the certificate is for {host}"), async || {
            let authority = self.secret("one-ca", "ca.crt").await.unwrap();
            let leaf = self
                .secret("one-api-server-certificate", "apiserver.crt")
                .await;
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate(&authority)).unwrap();
            let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
                .build()
                .unwrap();
            let leaf = certificate(&leaf.unwrap());
            let now = UnixTime::now();
            verifier
                .verify_server_cert(&leaf, &[], &name, &[], now)
                .is_ok()
        })
        .await;
    }

    /// Waits until the tenant's own pods are told these addresses, by slice.
    pub(crate) async fn slices(&self, wanted: &[(&str, &[&str])]) {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let wanted: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|(name, addresses)| ((*name).to_owned(), owned(addresses)))
            .collect();
        let slices: Api<EndpointSlice> = Api::namespaced(self.inside.clone(), "default");
        until(&format!("slices are {wanted:?}"), async || {
            let found = slices.list(&ListParams::default()).await.unwrap();
            let addresses = |slice: EndpointSlice| {
                let endpoints = slice.endpoints.iter();
                let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.clone());
                (slice.name_any(), addresses.collect())
            };
            found.into_iter().map(addresses).collect::<BTreeMap<_, _>>() == wanted
        })
        .await;
    }

    /// Arguments of a `DaemonSet` of the tenant, if it is there.
    pub(crate) async fn arguments(&self, name: &str) -> Option<Vec<String>> {
        let sets: Api<DaemonSet> = Api::namespaced(self.inside.clone(), "kube-system");
        let pod = sets.get_opt(name).await.unwrap()?.spec?.template.spec?;
        pod.containers.into_iter().next()?.args
    }

    /// Address of the Service in the management cluster.
    pub(crate) async fn service_address(&self) -> String {
        let services: Api<Service> = Api::namespaced(self.bare.client.clone(), "a");
        let spec = services.get("one").await.unwrap().spec.unwrap();
        spec.cluster_ip.unwrap()
    }

    /// How often the pods were changed.
    pub(crate) async fn generation(&self) -> i64 {
        let deployment = self.deployment().await;
        deployment.metadata.generation.unwrap()
    }

    /// Issuers of tokens, the one that signs first.
    pub(crate) async fn issuers(&self) -> Vec<String> {
        let pod = self.deployment().await.spec.unwrap().template.spec.unwrap();
        let server = pod.containers.into_iter().next().unwrap();
        let words = server.command.into_iter().chain(server.args).flatten();
        words
            .filter_map(|word| Some(word.strip_prefix("--service-account-issuer=")?.to_owned()))
            .collect()
    }

    pub(crate) async fn storage_id(&self) -> String {
        let tenant = self.bare.tenants("a").get("one").await.unwrap();
        tenant.status.unwrap().storage.unwrap().setup.schema
    }

    async fn deployment(&self) -> Deployment {
        let deployments: Api<Deployment> = Api::namespaced(self.bare.client.clone(), "a");
        deployments.get("one").await.unwrap()
    }

    async fn secret(&self, name: &str, entry: &str) -> Option<String> {
        let secret = self.bare.secrets("a").get(name).await.unwrap();
        let bytes = secret.data.unwrap_or_default().remove(entry)?;
        Some(String::from_utf8(bytes.0).unwrap())
    }
}

async fn config_map(client: &Client, namespace: &str, name: &str, entry: &str) -> Option<String> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    config_maps
        .get_opt(name)
        .await
        .unwrap()?
        .data?
        .remove(entry)
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
