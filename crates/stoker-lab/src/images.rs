//! Container images of the upstream components, under the names and tags that manifests default to.
//!
//! Each image is a docker archive in the cache, made by buildah from scratch. kube-apiserver is an image of its
//! own, with its file capability, as upstream ships it; the other Kubernetes components share one.

mod archive;
mod packet_filter;

use std::path::{Path, PathBuf};

use anyhow::Result;
pub use archive::build_archive;
use archive::{Content, Recipe};

use crate::host::Host;
use crate::upstream::Upstream;
use crate::versions::{AGNHOST, KubernetesVersion, SAMPLE_DEVICE_PLUGIN};

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The docker archive.
    pub archive: PathBuf,
    /// All references of the image; the archive itself carries the first.
    pub references: Vec<String>,
}

/// What a tenant's control plane of a release runs: kube-apiserver, kube-controller-manager, kube-scheduler. Made
/// when it is not yet in the cache.
///
/// # Errors
/// When a component cannot be built or buildah fails.
pub async fn control_plane(upstream: &Upstream, version: KubernetesVersion) -> Result<Vec<Image>> {
    Ok(vec![
        api_server(upstream, version).await?,
        components(upstream, version).await?,
    ])
}

/// What nodes of a release run: kube-proxy, `CoreDNS`, pause, and agnhost. Made when it is not yet in the cache.
///
/// # Errors
/// As [`control_plane`].
pub async fn node(upstream: &Upstream, version: KubernetesVersion) -> Result<Vec<Image>> {
    Ok(vec![
        components(upstream, version).await?,
        coredns(upstream, version).await?,
        pause(upstream, version).await?,
        agnhost(upstream).await?,
    ])
}

/// All images of a release, each once.
///
/// # Errors
/// As [`control_plane`].
pub async fn all(upstream: &Upstream, version: KubernetesVersion) -> Result<Vec<Image>> {
    let mut images = vec![api_server(upstream, version).await?];
    images.extend(node(upstream, version).await?);
    Ok(images)
}

/// Imports the images that a host's containerd does not have under all their names.
///
/// # Errors
/// What `ctr` says.
pub async fn import(host: &Host, images: &[Image]) -> Result<()> {
    let present = host
        .run(["ctr", "--namespace", "k8s.io", "images", "list", "-q"])
        .await?;
    let present: Vec<_> = present.lines().collect();
    for image in images {
        if !image
            .references
            .iter()
            .all(|name| present.contains(&name.as_str()))
        {
            load(host, &image.archive, &image.references).await?;
        }
    }
    Ok(())
}

/// Imports one archive and gives its image all of `references`, the first of which the archive carries.
///
/// # Errors
/// What `ctr` says.
pub async fn load(host: &Host, archive: &Path, references: &[String]) -> Result<()> {
    let archive = archive.to_string_lossy();
    host.run([
        "ctr",
        "--namespace",
        "k8s.io",
        "images",
        "import",
        archive.as_ref(),
    ])
    .await?;
    for other in references.iter().skip(1) {
        host.run([
            "ctr",
            "--namespace",
            "k8s.io",
            "images",
            "tag",
            "--force",
            &references[0],
            other,
        ])
        .await?;
    }
    Ok(())
}

async fn api_server(upstream: &Upstream, version: KubernetesVersion) -> Result<Image> {
    let binaries = upstream.kubernetes(version).await?;
    let recipe = Recipe {
        name: "kube-apiserver",
        version: version.version,
        contents: vec![Content::file(
            binaries.join("kube-apiserver"),
            "/usr/local/bin/kube-apiserver",
        )],
        ..Recipe::default()
    };
    let reference = component_reference("kube-apiserver", version);
    Ok(Image {
        archive: recipe.build(upstream, &reference).await?,
        references: vec![reference],
    })
}

async fn components(upstream: &Upstream, version: KubernetesVersion) -> Result<Image> {
    let binaries = upstream.kubernetes(version).await?;
    let program = "/usr/local/bin/kubernetes";
    let links = ["kube-controller-manager", "kube-scheduler", "kube-proxy"];
    let mut contents = vec![Content::file(binaries.join("kubernetes"), program)];
    contents
        .extend(links.map(|name| Content::link("kubernetes", &format!("/usr/local/bin/{name}"))));
    contents.extend(packet_filter::contents().await?);
    let recipe = Recipe {
        name: "kubernetes",
        version: version.version,
        contents,
        ..Recipe::default()
    };
    let references = links.map(|name| component_reference(name, version));
    Ok(Image {
        archive: recipe.build(upstream, &references[0]).await?,
        references: references.into(),
    })
}

async fn coredns(upstream: &Upstream, version: KubernetesVersion) -> Result<Image> {
    let binaries = upstream.coredns(version.coredns).await?;
    let recipe = Recipe {
        name: "coredns",
        version: version.coredns,
        contents: vec![Content::file(binaries.join("coredns"), "/coredns")],
        entrypoint: Some("/coredns"),
        user: Some("65532:65532"),
        // As upstream: port 53 without root.
        capabilities: Some(("/coredns", "cap_net_bind_service=+ep")),
    };
    let reference = coredns_reference(version);
    Ok(Image {
        archive: recipe.build(upstream, &reference).await?,
        references: vec![reference],
    })
}

async fn pause(upstream: &Upstream, version: KubernetesVersion) -> Result<Image> {
    let binaries = upstream.pause().await?;
    let recipe = Recipe {
        name: "pause",
        version: version.pause,
        contents: vec![Content::file(binaries.join("pause"), "/pause")],
        entrypoint: Some("/pause"),
        user: Some("65535:65535"),
        ..Recipe::default()
    };
    let reference = pause_reference(version);
    Ok(Image {
        archive: recipe.build(upstream, &reference).await?,
        references: vec![reference],
    })
}

/// A device plugin with two devices that are none, for tests. Made when it is not yet in the cache.
///
/// # Errors
/// As [`control_plane`].
pub async fn sample_device_plugin(upstream: &Upstream) -> Result<Image> {
    let binaries = upstream.sample_device_plugin().await?;
    let program = binaries.join("sample-device-plugin");
    let recipe = Recipe {
        name: "sample-device-plugin",
        version: SAMPLE_DEVICE_PLUGIN,
        contents: vec![Content::file(program, "/sampledeviceplugin")],
        entrypoint: Some("/sampledeviceplugin"),
        ..Recipe::default()
    };
    let reference =
        format!("registry.k8s.io/e2e-test-images/sample-device-plugin:{SAMPLE_DEVICE_PLUGIN}");
    Ok(Image {
        archive: recipe.build(upstream, &reference).await?,
        references: vec![reference],
    })
}

async fn agnhost(upstream: &Upstream) -> Result<Image> {
    let binaries = upstream.agnhost().await?;
    let recipe = Recipe {
        name: "agnhost",
        version: AGNHOST,
        contents: vec![Content::file(binaries.join("agnhost"), "/agnhost")],
        entrypoint: Some("/agnhost"),
        ..Recipe::default()
    };
    let reference = agnhost_reference();
    Ok(Image {
        archive: recipe.build(upstream, &reference).await?,
        references: vec![reference],
    })
}

/// The name under which a kubelet's containerd must know the sandbox image.
#[must_use]
pub fn pause_reference(version: KubernetesVersion) -> String {
    format!("registry.k8s.io/pause:{}", version.pause)
}

/// Name of agnhost, the image for demonstrations and tests.
#[must_use]
pub fn agnhost_reference() -> String {
    format!("registry.k8s.io/e2e-test-images/agnhost:{AGNHOST}")
}

fn component_reference(name: &str, version: KubernetesVersion) -> String {
    format!("registry.k8s.io/{name}:{}", version.version)
}

/// kubeadm's name of `CoreDNS` for the release.
#[must_use]
pub fn coredns_reference(version: KubernetesVersion) -> String {
    format!("registry.k8s.io/coredns/coredns:{}", version.coredns)
}

/// Whether a path is an executable file.
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
