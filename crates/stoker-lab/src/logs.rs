//! Collecting what a person needs to understand a failure.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::command::{program, run};
use crate::lab::Lab;

/// What is asked of the management cluster, with the name of the file for the answer.
const QUESTIONS: [(&str, &[&str]); 3] = [
    ("objects.txt", &["get", "all,events", "-A", "-o", "wide"]),
    ("pods.txt", &["describe", "pods", "-A"]),
    (
        "stoker.yaml",
        &["get", "tenantcontrolplanes,datastores", "-A", "-o", "yaml"],
    ),
];

impl Lab {
    /// Copies the logs of all hosts' programs and containers into `out/<host>`, and descriptions of what is on
    /// the management cluster into `out`. What cannot be had is left out.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub async fn collect_logs(&self, out: &Path) -> Result<()> {
        let hosts = self.hosts();
        ensure!(
            !hosts.is_empty(),
            "the lab `{}` is not up, so there are no logs",
            self.paths().lab()
        );
        for host in hosts {
            let target = out.join(host.name());
            std::fs::create_dir_all(&target)
                .with_context(|| format!("making {}", target.display()))?;
            for part in ["log", "var-log"] {
                let mut copy = program("cp", ["-rL", "--"]);
                copy.arg(host.state().join(part)).arg(&target);
                // Links to logs of containers that are gone make it fail after copying the rest.
                let _ = run(&mut copy).await;
            }
        }
        let kubectl = self
            .upstream()
            .kubernetes(self.kubernetes())
            .await?
            .join("kubectl");
        for (file, question) in QUESTIONS {
            let mut command = program(&kubectl, ["--kubeconfig"]);
            command
                .arg(self.paths().kubeconfig("management"))
                .arg("--request-timeout=5s");
            // Without an API server, or before the kinds are installed, there is no answer.
            if let Ok(answer) = run(command.args(question)).await {
                std::fs::write(out.join(file), answer)
                    .with_context(|| format!("writing {file}"))?;
            }
        }
        Ok(())
    }
}
