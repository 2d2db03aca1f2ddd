//! Upstream binaries, built from their Go modules at pinned versions into a cache outside the tree.
//!
//! An entry of the cache is a directory `<name>-<version>-<recipe hash>`. It is built beside its place and
//! renamed into it, under a file lock, so an interrupted build leaves nothing half-done and two runs at once
//! build once. Go verifies every module against its checksum database and `go.sum`.

mod cache;
mod go_module;
mod kubernetes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::{program, run};
use crate::steps::Steps;
use crate::versions::KubernetesVersion;
pub use cache::CacheEntry;
pub(crate) use cache::{Cache, key as cache_key};
use go_module::{GoBuild, Require};

/// A pause that holds a pod's namespaces open: waits for a signal and reaps what is orphaned to it.
const PAUSE_C: &str = r"#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = end;
  if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0) return 1;
  action.sa_handler = reap;
  action.sa_flags = SA_NOCLDSTOP;
  if (sigaction(SIGCHLD, &action, NULL) < 0) return 2;
  for (;;) pause();
}
";

/// Builds upstream components, or finds them already built.
#[derive(Debug, Clone)]
pub struct Upstream {
    cache: Cache,
    steps: Steps,
}

impl Upstream {
    /// Opens the cache: `$STOKER_CACHE`, else `$XDG_CACHE_HOME/stoker`, else `~/.cache/stoker`.
    ///
    /// # Errors
    /// When none of the three is set or the directory cannot be made.
    pub fn open(steps: Steps) -> Result<Self> {
        Ok(Self {
            cache: Cache::open()?,
            steps,
        })
    }

    /// What the cache holds, largest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cached(&self) -> Result<Vec<CacheEntry>> {
        self.cache.entries()
    }

    /// Removes from the cache what no run has asked for in the time `unused` and no lab runs from; returns that.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune(&self, unused: Duration) -> Result<Vec<CacheEntry>> {
        self.cache.prune(&self.steps, unused)
    }

    /// The cache of images beside the binaries.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The printer of steps that builds report to.
    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// A directory with `kube-apiserver` (its own file, with `cap_net_bind_service`, as upstream ships it) and
    /// `kubernetes`, to which kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubeadm and kubectl
    /// are links.
    ///
    /// # Errors
    /// When the build fails; it needs Go and the module proxy.
    pub async fn kubernetes(&self, version: KubernetesVersion) -> Result<PathBuf> {
        kubernetes::build(self, version).await
    }

    /// A directory with `agnhost`, the test program of the newest Kubernetes release.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn agnhost(&self) -> Result<PathBuf> {
        kubernetes::build_agnhost(self).await
    }

    /// A directory with `sample-device-plugin` of the newest Kubernetes release, which has two devices that are none.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn sample_device_plugin(&self) -> Result<PathBuf> {
        kubernetes::build_sample_device_plugin(self).await
    }

    /// A directory with `etcd`, `etcdctl` and `etcdutl` of a version such as `v3.6.16`.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn etcd(&self, version: &str) -> Result<PathBuf> {
        let module = |part: &str| format!("go.etcd.io/etcd/{part}/v3");
        let require = |part: &str| Require {
            module: module(part),
            version: version.into(),
        };
        let build = GoBuild {
            name: "etcd",
            version: version.into(),
            requires: vec![require("server"), require("etcdctl"), require("etcdutl")],
            packages: vec![
                (module("server"), "etcd"),
                (module("etcdctl"), "etcdctl"),
                (module("etcdutl"), "etcdutl"),
            ],
            ..GoBuild::default()
        };
        build.build(self).await
    }

    /// A directory with `containerd`, `containerd-shim-runc-v2` and `ctr` of a version such as `v2.4.2`.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn containerd(&self, version: &str) -> Result<PathBuf> {
        let module = "github.com/containerd/containerd/v2";
        let build = GoBuild {
            name: "containerd",
            version: version.into(),
            requires: vec![Require {
                module: module.into(),
                version: version.into(),
            }],
            packages: ["containerd", "containerd-shim-runc-v2", "ctr"]
                .map(|name| (format!("{module}/cmd/{name}"), name))
                .into(),
            ldflags: vec![format!("-X {module}/version.Version={version}")],
            // The snapshotters that would need C libraries; the lab uses overlayfs.
            tags: "no_btrfs no_devmapper no_zfs",
            ..GoBuild::default()
        };
        build.build(self).await
    }

    /// A directory with `coredns` of a version such as `v1.14.2`.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn coredns(&self, version: &str) -> Result<PathBuf> {
        let module = "github.com/coredns/coredns";
        let build = GoBuild {
            name: "coredns",
            version: version.into(),
            requires: vec![Require {
                module: module.into(),
                version: version.into(),
            }],
            packages: vec![(module.into(), "coredns")],
            ..GoBuild::default()
        };
        build.build(self).await
    }

    /// A directory with `helm` of a version such as `v4.3.1`.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn helm(&self, version: &str) -> Result<PathBuf> {
        let module = "helm.sh/helm/v4";
        let build = GoBuild {
            name: "helm",
            version: version.into(),
            requires: vec![Require {
                module: module.into(),
                version: version.into(),
            }],
            packages: vec![(format!("{module}/cmd/helm"), "helm")],
            ..GoBuild::default()
        };
        build.build(self).await
    }

    /// A directory with a static `pause`.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub async fn pause(&self) -> Result<PathBuf> {
        let key = cache::key("pause", "1", PAUSE_C);
        let build = async |out: PathBuf| {
            let source = out.join("pause.c");
            std::fs::write(&source, PAUSE_C).context("writing pause.c")?;
            let target = out.join("pause");
            let mut gcc = program("gcc", ["-Os", "-s", "-static", "-Wall", "-o"]);
            run(gcc.arg(&target).arg(&source)).await?;
            std::fs::remove_file(&source).context("removing pause.c")
        };
        self.cache
            .entry(&self.steps, &key, "building pause", build)
            .await
    }
}
