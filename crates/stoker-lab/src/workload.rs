//! `examples/workload.yaml` in a tenant: two web servers behind a Service.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::paths::checkout;

impl Lab {
    /// Applies it to the tenant of that kubeconfig in `.stoker` and waits until its pods and cluster DNS run.
    ///
    /// # Errors
    /// When they do not; it has what kubectl says.
    pub async fn start_workload(&self, tenant: &str) -> Result<()> {
        let file = checkout().join("examples/workload.yaml");
        let file = file.to_string_lossy();
        // A namespace gets its default ServiceAccount a moment after the API server is up.
        retry(Duration::from_secs(30), async || {
            self.kubectl_with(tenant, &["apply", "--server-side", "-f", &file])
                .await
                .map(drop)
        })
        .await?;
        self.rolled_out(tenant, "default", "deployment/echo")
            .await?;
        self.rolled_out(tenant, "kube-system", "deployment/coredns")
            .await
    }

    /// What a person would try first: logs, exec, a Service and cluster DNS must answer.
    ///
    /// # Errors
    /// What did not answer within two minutes.
    pub async fn check_workload(&self, tenant: &str) -> Result<()> {
        // After a restart of its machine a kubelet takes a while to know its pods again.
        retry(Duration::from_mins(2), async || {
            self.try_workload(tenant).await
        })
        .await
    }

    async fn try_workload(&self, tenant: &str) -> Result<()> {
        let names = "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}";
        let pods = self
            .kubectl_with(tenant, &["get", "pods", "-l", "app=echo", "-o", names])
            .await?;
        let running: Vec<_> = pods
            .split_whitespace()
            .filter_map(|pod| pod.strip_suffix("=Running"))
            .collect();
        ensure!(running.len() == 2, "two pods must run; there are: {pods}");
        let logs = self.kubectl_with(tenant, &["logs", running[0]]).await?;
        ensure!(!logs.is_empty(), "`kubectl logs` printed nothing");
        let name = self
            .kubectl_with(tenant, &["exec", running[0], "--", "/agnhost", "help"])
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
                self.kubectl_with(tenant, &connect).await.map(drop)
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
