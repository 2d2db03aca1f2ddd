//! The management cluster: one host with a control plane and a node, as an operator would have them.

mod addons;
mod certificates;
mod control_plane;
mod node;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::command::run_with_input;
use crate::containerd;
use crate::credentials::kube_client;
use crate::host::Host;
use crate::images;
use crate::lab::Lab;
use crate::versions::{CONTAINERD, ETCD};

/// Name of the management host and of its node.
pub const HOST: &str = "management";

impl Lab {
    /// Starts the management cluster and waits until its API server answers and its node is ready.
    pub(crate) async fn start_management(&self) -> Result<()> {
        let steps = self.steps();
        if !self.paths().management_pki().join("complete").exists() {
            certificates::issue(self).context("issuing the management cluster's certificates")?;
        }
        let upstream = self.upstream();
        let binaries = vec![
            upstream.kubernetes(self.kubernetes()).await?,
            upstream.containerd(CONTAINERD).await?,
            upstream.etcd(ETCD).await?,
        ];
        let host = self
            .start_host(HOST, self.addresses().management(), binaries.clone())
            .await?;
        let client = self.management_client().await?;
        let api_server = async {
            control_plane::start(self, &host, &binaries[2])?;
            wait_ready(&client, &host).await
        };
        let runtime = async {
            containerd::start(&host, self.machine(), self.kubernetes()).await?;
            let images = images::all(upstream, self.kubernetes()).await?;
            images::import(&host, &images).await
        };
        // Boxed, as it holds the build of every component.
        let both = Box::pin(async { tokio::try_join!(api_server, runtime).map(drop) });
        steps
            .step("management API server and container images", both)
            .await?;
        node::start(self, &host)?;
        let addons = addons::objects(self);
        steps
            .step(
                "management node and DNS",
                self.finish(&client, &host, &addons),
            )
            .await
    }

    async fn finish(
        &self,
        client: &kube::Client,
        host: &Host,
        addons: &serde_json::Value,
    ) -> Result<()> {
        self.apply(addons)
            .await
            .context("applying the management cluster's add-ons")?;
        crate::node::wait_ready(client, host, Duration::from_mins(2)).await?;
        addons::wait_ready(client).await
    }

    /// Applies objects to the management cluster with `kubectl apply --server-side`.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn apply(&self, objects: &serde_json::Value) -> Result<()> {
        self.apply_text(&objects.to_string()).await
    }

    /// Ends the management cluster and removes what it knew and what ran on it, as when its machines are lost. Its
    /// certificates stay; [`Lab::up`] makes another one at its address. Pool and workers are not touched.
    ///
    /// # Errors
    /// When something of it cannot be ended or removed.
    pub async fn lose_management(&self) -> Result<()> {
        let host = self.host(HOST)?;
        host.stop().await?;
        let groups = &self.machine().control_groups;
        groups.remove(&self.control_group(HOST))?;
        std::fs::remove_dir_all(host.state())
            .with_context(|| format!("removing {}", host.state().display()))
    }

    /// Applies a manifest, as [`Lab::apply`] does objects.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn apply_text(&self, manifest: &str) -> Result<()> {
        let mut command = self.kubectl_command(HOST).await?;
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        run_with_input(&mut command, manifest.as_bytes())
            .await
            .map(drop)
    }

    /// An administrator's client for the management cluster.
    ///
    /// # Errors
    /// When the lab is not up.
    pub async fn management_client(&self) -> Result<kube::Client> {
        let path = self.paths().kubeconfig(HOST);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {} (is the lab up?)", path.display()))?;
        kube_client(&text).await
    }
}

async fn wait_ready(client: &kube::Client, host: &Host) -> Result<()> {
    let begun = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let Err(error) = client.request_text(request).await else {
            return Ok(());
        };
        ensure!(
            begun.elapsed() < Duration::from_mins(2),
            "the management API server is not ready ({error}); see {}: {}",
            host.log("kube-apiserver").display(),
            host.log_end("kube-apiserver")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
