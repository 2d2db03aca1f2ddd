//! The main job, as `make up` does it: a tenant control plane as pods, a worker joined to it, pods running there.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::lab::Lab;
use crate::paths::checkout;

/// Name and namespace of the tenant in `examples/tenant.yaml`.
pub const TENANT: &str = "demo";
/// Base domain of `make up`, in a domain that nobody has (RFC 6761).
pub const DOMAIN: &str = "clusters.stoker.test";
/// Number of the worker that joins it.
const WORKER: u8 = 1;

impl Lab {
    /// Everything that `make up` promises, on top of [`Lab::up`]. What is there already is left alone.
    ///
    /// # Errors
    /// When a step fails; the error says what was seen.
    pub async fn whole_job(&self) -> Result<()> {
        self.install_stoker().await?;
        self.install_front_door(DOMAIN, &[]).await?;
        self.demo(Some(DOMAIN)).await?;
        // Also those that people have made.
        self.lead_all_to_gateway(DOMAIN).await
    }

    /// The same without the gateway: tenants are reached at addresses of their own.
    ///
    /// # Errors
    /// When a step fails; the error says what was seen.
    pub async fn main_job(&self) -> Result<()> {
        self.install_stoker().await?;
        self.demo(None).await
    }

    /// The tenant with its worker and workload, where Stoker is installed; behind the gateway if that is, for this base domain.
    ///
    /// # Errors
    /// When a step fails; the error says what was seen.
    pub async fn demo(&self, domain: Option<&str>) -> Result<()> {
        let steps = self.steps();
        steps.step("stokerctl", self.install_stokerctl()).await?;
        let file = checkout().join("examples/tenant.yaml");
        let tenant = async {
            self.start_tenant(&file, TENANT, TENANT).await?;
            if let Some(domain) = domain {
                self.lead_to_gateway(TENANT, TENANT, domain).await?;
                self.write_tenant_kubeconfig(TENANT, TENANT).await?;
            }
            Ok(())
        };
        steps.step(format!("tenant {TENANT}"), tenant).await?;
        steps
            .step("worker joined to the tenant", self.join_worker())
            .await?;
        steps
            .step(
                "workload in the tenant: two replicas running",
                self.start_workload(TENANT),
            )
            .await?;
        steps
            .step(
                "logs, exec, Service and DNS in the tenant",
                self.check_workload(TENANT),
            )
            .await
    }

    /// Applies a tenant from a file, waits until it is Ready, and writes its kubeconfig.
    ///
    /// # Errors
    /// When it is not Ready within 3 minutes; the error has the tenant's conditions.
    pub async fn start_tenant(&self, file: &Path, namespace: &str, name: &str) -> Result<()> {
        let file = file.to_string_lossy();
        self.kubectl(&["apply", "--server-side", "-f", &file])
            .await?;
        let object = format!("tcp/{name}");
        let wait = [
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            &object,
            "--timeout=180s",
        ];
        if let Err(error) = self.kubectl(&wait).await {
            let seen = [
                "-n",
                namespace,
                "get",
                &object,
                "-o",
                "jsonpath={.status.conditions}",
            ];
            let conditions = self.kubectl(&seen).await.unwrap_or_default();
            return Err(error).with_context(|| format!("the tenant's conditions: {conditions}"));
        }
        self.write_tenant_kubeconfig(namespace, name).await
    }

    /// Writes `.stoker/<name>.kubeconfig` from the tenant's Secret.
    ///
    /// # Errors
    /// When the Secret is not there or the file cannot be written.
    pub async fn write_tenant_kubeconfig(&self, namespace: &str, name: &str) -> Result<()> {
        let secret = format!("secret/{name}-admin-kubeconfig");
        let get = [
            "-n",
            namespace,
            "get",
            &secret,
            "-o",
            "jsonpath={.data.admin\\.conf}",
        ];
        let encoded = self.kubectl(&get).await?;
        let text = STANDARD
            .decode(encoded.trim())
            .context("the admin kubeconfig is not base64")?;
        ensure!(
            !text.is_empty(),
            "{secret} has no admin.conf yet: the tenant has no endpoint"
        );
        let text = String::from_utf8(text).context("the admin kubeconfig is not text")?;
        crate::credentials::write_private(&self.paths().kubeconfig(name), &text)
    }

    /// A second host, joined by an unmodified `kubeadm join`; nothing to do when its node is there.
    async fn join_worker(&self) -> Result<()> {
        let mut worker = self.add_worker(WORKER, self.kubernetes()).await?;
        let nodes = self
            .kubectl_with(TENANT, &["get", "nodes", "-o", "name"])
            .await?;
        if nodes
            .lines()
            .any(|node| node.strip_prefix("node/") == Some(worker.name()))
        {
            return Ok(());
        }
        // Joined to a tenant that is gone, or only half joined: a new machine takes its place.
        if worker
            .run(["test", "-e", "/etc/kubernetes/kubelet.conf"])
            .await
            .is_ok()
        {
            self.remove_worker(WORKER).await?;
            worker = self.add_worker(WORKER, self.kubernetes()).await?;
        }
        self.join(&worker, &self.paths().kubeconfig(TENANT)).await
    }
}
