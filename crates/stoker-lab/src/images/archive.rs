//! From files to a docker archive, with buildah and a storage of its own that is removed afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::{program, run};
use crate::upstream::{Upstream, cache_key};

/// The search path of an image, Debian's own.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One thing in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A file of this machine, copied with its capabilities.
    File { from: PathBuf, to: String },
    /// A symbolic link.
    Link { target: String, path: String },
}

impl Content {
    pub(super) fn file(from: impl Into<PathBuf>, to: &str) -> Self {
        Self::File {
            from: from.into(),
            to: to.to_owned(),
        }
    }

    pub(super) fn link(target: &str, path: &str) -> Self {
        Self::Link {
            target: target.to_owned(),
            path: path.to_owned(),
        }
    }

    /// Puts it below `root`.
    fn put(&self, root: &Path) -> Result<()> {
        let place = |path: &str| -> Result<PathBuf> {
            let place = root.join(path.trim_start_matches('/'));
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("making {}", parent.display()))?;
            }
            Ok(place)
        };
        match self {
            Self::File { from, to } => {
                std::fs::copy(from, place(to)?)
                    .with_context(|| format!("copying {} into an image", from.display()))?;
            }
            Self::Link { target, path } => {
                let place = place(path)?;
                if !place.is_symlink() {
                    std::os::unix::fs::symlink(target, &place)
                        .with_context(|| format!("linking {}", place.display()))?;
                }
            }
        }
        Ok(())
    }
}

/// What an image is made of.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) contents: Vec<Content>,
    pub(super) entrypoint: Option<&'static str>,
    pub(super) user: Option<&'static str>,
    /// A file of the image and the capabilities to set on it.
    pub(super) capabilities: Option<(&'static str, &'static str)>,
}

impl Recipe {
    /// The archive in the cache, made when it is missing.
    pub(super) async fn build(&self, upstream: &Upstream, reference: &str) -> Result<PathBuf> {
        let recipe = format!("{self:?} {reference}");
        let key = cache_key(&format!("image-{}", self.name), self.version, &recipe);
        let title = format!("image {reference}");
        let build = async |out: PathBuf| {
            let root = out.join("root");
            std::fs::create_dir_all(&root).context("making the image's root")?;
            for content in &self.contents {
                content.put(&root)?;
            }
            self.restore_capabilities(&root).await?;
            let archive = out.join("image.tar");
            build_archive(&root, &archive, reference, self.entrypoint, self.user).await?;
            std::fs::remove_dir_all(&root).context("removing the image's root")
        };
        let entry = upstream
            .cache()
            .entry(upstream.steps(), &key, &title, build)
            .await?;
        Ok(entry.join("image.tar"))
    }

    /// A copied file loses its capabilities: sets the recipe's, and those that the original had.
    async fn restore_capabilities(&self, root: &Path) -> Result<()> {
        if let Some((file, capabilities)) = self.capabilities {
            let file = root.join(file.trim_start_matches('/'));
            run(program("setcap", [capabilities]).arg(file)).await?;
        }
        for content in &self.contents {
            let Content::File { from, to } = content else {
                continue;
            };
            let said = run(program("getcap", [""; 0]).arg(from)).await?;
            if let Some(capabilities) = said.split_whitespace().nth(1) {
                let file = root.join(to.trim_start_matches('/'));
                run(program("setcap", [capabilities]).arg(file)).await?;
            }
        }
        Ok(())
    }
}

/// Makes a docker archive whose only layer is the tree `root`. The archive carries `reference`.
///
/// # Errors
/// When buildah fails.
pub async fn build_archive(
    root: &Path,
    archive: &Path,
    reference: &str,
    entrypoint: Option<&str>,
    user: Option<&str>,
) -> Result<()> {
    let storage = archive.with_extension("storage");
    let buildah = |arguments: &[&str]| {
        // vfs: one layer only, and overlayfs cannot be had inside every container.
        let mut command = program("buildah", ["--storage-driver", "vfs", "--root"]);
        command
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"))
            .args(arguments);
        command
    };
    let container = run(&mut buildah(&["from", "scratch"])).await?;
    let container = container.trim();
    run(buildah(&["copy", container]).arg(root).arg("/")).await?;
    let mut config = buildah(&["config", "--env", PATH]);
    if let Some(entrypoint) = entrypoint {
        config
            .arg("--entrypoint")
            .arg(format!("[\"{entrypoint}\"]"));
    }
    if let Some(user) = user {
        config.arg("--user").arg(user);
    }
    run(config.arg(container)).await?;
    let target = format!("docker-archive:{}:{reference}", archive.display());
    run(&mut buildah(&["commit", "--quiet", container, &target])).await?;
    std::fs::remove_dir_all(&storage).with_context(|| format!("removing {}", storage.display()))
}
