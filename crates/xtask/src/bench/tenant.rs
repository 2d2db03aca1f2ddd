//! A tenant as a person applies it, in a namespace of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use stoker_api::v1alpha1::TenantControlPlane;

use super::ground::Ground;

/// Name of every tenant; their namespaces differ.
const NAME: &str = "tenant";
/// A tenant's pod serves on for 10 s when it is deleted, and its keys are purged after.
const REMOVAL: Duration = Duration::from_mins(3);

/// A tenant that can be applied.
pub(super) struct Tenant {
    namespace: String,
    client: Client,
    object: TenantControlPlane,
}

impl Tenant {
    /// Makes the namespace `bench-<name>`.
    ///
    /// # Errors
    /// What the management API server says.
    pub(super) async fn prepare(ground: &Ground, name: &str) -> Result<Self> {
        let namespace = format!("bench-{name}");
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(ground.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .context("making a tenant's namespace")?;
        let object = json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": { "name": NAME, "namespace": namespace },
            "spec": {
                "controlPlane": {
                    "deployment": { "replicas": 1 },
                    "service": { "serviceType": "ClusterIP" },
                },
                "kubernetes": { "version": ground.lab.kubernetes().version, "kubelet": {} },
                "addons": { "coreDNS": {}, "kubeProxy": {} },
                "deletion": { "dataRetentionSeconds": 0 },
            },
        });
        Ok(Self {
            namespace,
            client: ground.client.clone(),
            object: serde_json::from_value(object).context("the benchmark's tenant")?,
        })
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Creates the object.
    ///
    /// # Errors
    /// What the management API server says.
    pub(super) async fn apply(&self) -> Result<()> {
        self.api()
            .create(&PostParams::default(), &self.object)
            .await
            .map(drop)
            .context("creating a tenant")
    }

    /// Changes its spec.
    ///
    /// # Errors
    /// What the management API server says.
    pub(super) async fn change(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let params = PatchParams::default();
        let patched = self.api().patch(NAME, &params, &patch).await;
        patched.map(drop).context("changing a tenant")
    }

    /// The administrator's kubeconfig.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) async fn kubeconfig(&self) -> Result<String> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get(&format!("{NAME}-admin-kubeconfig")).await?;
        let data = secret.data.unwrap_or_default();
        let text = data.get("admin.conf").context("no admin.conf")?;
        String::from_utf8(text.0.clone()).context("admin.conf is not text")
    }

    /// A client of the tenant's administrator, at the address of the tenant's pod.
    ///
    /// # Errors
    /// When the kubeconfig is not there.
    pub(super) async fn administrator(&self, address: &str) -> Result<Client> {
        let text = self.kubeconfig().await?;
        let parsed = Kubeconfig::from_yaml(&text).context("reading admin.conf")?;
        let mut config =
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{address}:6443").parse()?;
        config.tls_server_name = Some("kubernetes".to_owned());
        Client::try_from(config).context("making the administrator's client")
    }

    /// Deletes the tenant and its namespace and waits until both are gone.
    ///
    /// # Errors
    /// When they stay.
    pub(super) async fn remove(self) -> Result<()> {
        let begun = Instant::now();
        let tenants = self.api();
        tenants.delete(NAME, &DeleteParams::default()).await?;
        while tenants.get_opt(NAME).await?.is_some() {
            ensure!(begun.elapsed() < REMOVAL, "{} does not go", self.namespace);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        while namespaces.get_opt(&self.namespace).await?.is_some() {
            ensure!(begun.elapsed() < REMOVAL, "{} does not go", self.namespace);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    fn api(&self) -> Api<TenantControlPlane> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
