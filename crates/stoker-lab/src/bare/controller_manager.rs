//! A kube-controller-manager beside a [`BareApiServer`]: what a cluster does with namespaces,
//! owners and certificate requests.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::BareApiServer;
use super::guarded::Guarded;
use crate::steps::Steps;
use crate::upstream::Upstream;
use crate::versions::default_kubernetes;

/// A running controller manager; it ends when the value is dropped.
#[derive(Debug)]
pub struct BareControllerManager {
    _process: Guarded,
    log: PathBuf,
}

impl BareControllerManager {
    /// Runs these controllers, named as in `--controllers`.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub async fn start(server: &BareApiServer, controllers: &[&str]) -> Result<Self> {
        let upstream = Upstream::open(Steps::new())?;
        let binaries = upstream.kubernetes(default_kubernetes()).await?;
        let directory = server.etcd().directory();
        let kubeconfig = directory.join("controller-manager.kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig()).context("writing a kubeconfig")?;
        let authority = |ending: &str| {
            let file = directory.join(format!("kubernetes-ca.{ending}"));
            file.display().to_string()
        };
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--cluster-signing-cert-file={}", authority("crt")),
            format!("--cluster-signing-key-file={}", authority("key")),
            format!("--controllers={}", controllers.join(",")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            // What the namespace controller waits for, and how long.
            "--v=4".to_owned(),
        ];
        let log = directory.join("kube-controller-manager.log");
        let program = binaries.join("kube-controller-manager");
        let process = Guarded::start(&program, &arguments, &log)?;
        Ok(Self {
            _process: process,
            log,
        })
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("reading the controller manager's log")
    }
}
