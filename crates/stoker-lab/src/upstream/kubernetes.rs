//! Kubernetes itself: one program for all components, as they share nearly all of their code.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Upstream;
use super::go_module::{GoBuild, Require};
use crate::command::{program, run};
use crate::versions::{AGNHOST, KubernetesVersion, default_kubernetes};

const MAIN_GO: &str = include_str!("kubernetes_main.go");
/// Names under which the one program behaves as that component.
const COMPONENTS: [&str; 6] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubeadm",
    "kubectl",
];

pub(super) async fn build(upstream: &Upstream, version: KubernetesVersion) -> Result<PathBuf> {
    let build = GoBuild {
        name: "kubernetes",
        main: Some(MAIN_GO),
        packages: vec![(".".into(), "kubernetes")],
        ..wrapper(version)
    };
    build
        .build_then(upstream, async |out| split(out).await)
        .await
}

pub(super) async fn build_agnhost(upstream: &Upstream) -> Result<PathBuf> {
    let build = GoBuild {
        name: "agnhost",
        packages: vec![("k8s.io/kubernetes/test/images/agnhost".into(), "agnhost")],
        ldflags: vec![format!("-X main.Version={}", AGNHOST)],
        ..wrapper(default_kubernetes())
    };
    build.build(upstream).await
}

pub(super) async fn build_sample_device_plugin(upstream: &Upstream) -> Result<PathBuf> {
    let package = "k8s.io/kubernetes/test/images/sample-device-plugin";
    let build = GoBuild {
        name: "sample-device-plugin",
        packages: vec![(package.into(), "sample-device-plugin")],
        ..wrapper(default_kubernetes())
    };
    build.build(upstream).await
}

fn wrapper(version: KubernetesVersion) -> GoBuild {
    GoBuild {
        version: version.version.into(),
        requires: vec![Require {
            module: "k8s.io/kubernetes".into(),
            version: version.version.into(),
        }],
        staging: Some(version.staging),
        ldflags: version_flags(version),
        ..GoBuild::default()
    }
}

/// What upstream's own build stamps; kubeadm and the version checks of all components read it.
fn version_flags(version: KubernetesVersion) -> Vec<String> {
    let mut numbers = version.version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    let values = [
        ("gitVersion", version.version),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
    ];
    [
        "k8s.io/component-base/version",
        "k8s.io/client-go/pkg/version",
    ]
    .iter()
    .flat_map(|package| values.map(|(name, value)| format!("-X {package}.{name}={value}")))
    .collect()
}

/// Gives the API server a file of its own with its capability, and the others their names.
async fn split(out: &Path) -> Result<()> {
    for name in COMPONENTS {
        symlink("kubernetes", out.join(name)).with_context(|| format!("linking {name}"))?;
    }
    let api_server = out.join("kube-apiserver");
    std::fs::copy(out.join("kubernetes"), &api_server).context("copying kube-apiserver")?;
    run(program("setcap", ["cap_net_bind_service=+ep"]).arg(&api_server))
        .await
        .map(drop)
}
