//! The main job, as `make up` does it: a tenant control plane as pods, a worker joined to it, pods running there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::lab::Lab;
use crate::paths::checkout;

/// Name and namespace of the tenant in `examples/tenant.yaml`.
pub const TENANT: &str = "demo";
/// Number of the worker that joins it.
const WORKER: u8 = 1;

impl Lab {
    /// Everything that `make up` promises, on top of [`Lab::up`]. What is there already is left alone.
    ///
    /// # Errors
    /// When a step fails; the error says what was seen.
    pub async fn main_job(&self) -> Result<()> {
        let steps = self.steps();
        self.install_stoker().await?;
        let examples = checkout().join("examples");
        let (tenant_file, workload_file) =
            (examples.join("tenant.yaml"), examples.join("workload.yaml"));
        let tenant = self.start_tenant(&tenant_file, TENANT, TENANT);
        steps.step(format!("tenant {TENANT}"), tenant).await?;
        steps
            .step("worker joined to the tenant", self.join_worker())
            .await?;
        let workload = self.start_workload(&workload_file);
        steps
            .step("workload in the tenant: two replicas running", workload)
            .await?;
        // After a restart of its machine a kubelet takes a while to know its pods again.
        let check = retry(Duration::from_mins(2), async || self.check_workload().await);
        steps
            .step("logs, exec, Service and DNS in the tenant", check)
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

    async fn start_workload(&self, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        // A namespace gets its default ServiceAccount a moment after the API server is up.
        retry(Duration::from_secs(30), async || {
            self.kubectl_with(TENANT, &["apply", "--server-side", "-f", &file])
                .await
                .map(drop)
        })
        .await?;
        let wait = ["rollout", "status", "deployment/echo", "--timeout=180s"];
        self.kubectl_with(TENANT, &wait).await?;
        let dns = [
            "-n",
            "kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            "--timeout=120s",
        ];
        self.kubectl_with(TENANT, &dns).await.map(drop)
    }

    /// What a person would try first: every line must answer.
    async fn check_workload(&self) -> Result<()> {
        let names = "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}";
        let pods = self
            .kubectl_with(TENANT, &["get", "pods", "-l", "app=echo", "-o", names])
            .await?;
        let running: Vec<_> = pods
            .split_whitespace()
            .filter_map(|pod| pod.strip_suffix("=Running"))
            .collect();
        ensure!(running.len() == 2, "two pods must run; there are: {pods}");
        let logs = self.kubectl_with(TENANT, &["logs", running[0]]).await?;
        ensure!(!logs.is_empty(), "`kubectl logs` printed nothing");
        let name = self
            .kubectl_with(TENANT, &["exec", running[0], "--", "/agnhost", "help"])
            .await?;
        ensure!(!name.is_empty(), "`kubectl exec` printed nothing");
        for target in [
            "echo:80",
            "echo.default.svc.cluster.local:80",
            "kubernetes.default:443",
        ] {
            retry(Duration::from_secs(30), async || {
                let connect = [
                    "exec",
                    running[1],
                    "--",
                    "/agnhost",
                    "connect",
                    target,
                    "--timeout=3s",
                ];
                self.kubectl_with(TENANT, &connect).await.map(drop)
            })
            .await
            .with_context(|| format!("from a pod of the tenant to {target}"))?;
        }
        Ok(())
    }
}

/// Tries until it works, at most for `limit`; then the last error.
async fn retry(limit: Duration, mut work: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match work().await {
            Err(error) if begun.elapsed() > limit => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            Ok(()) => return Ok(()),
        }
    }
}
