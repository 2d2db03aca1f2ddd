//! The API server of a control-plane pod as its manifest has it, as a plain process: every flag and file is the product's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::guarded::Guarded;
use crate::steps::Steps;
use crate::upstream::Upstream;
use crate::versions::KubernetesVersion;

/// Files of a container: mount path, then name, then content.
pub type MountedFiles = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// A running kube-apiserver with a container's arguments; it ends when the value is dropped.
#[derive(Debug)]
pub struct BareContainer {
    process: Guarded,
    files: ContainerFiles,
}

/// Where a container's files are, as a kubelet keeps them.
#[derive(Clone, Debug)]
pub struct ContainerFiles {
    directory: std::sync::Arc<TempDir>,
}

impl BareContainer {
    /// Starts it at `address` on the port that `arguments` name, with `files` in place.
    ///
    /// # Errors
    /// When the release cannot be built, or a file cannot be written.
    pub async fn start(
        version: KubernetesVersion,
        arguments: &[String],
        files: &MountedFiles,
        address: IpAddr,
    ) -> Result<Self> {
        let binaries = Upstream::open(Steps::new())?.kubernetes(version).await?;
        let directory = tempfile::tempdir().context("making a directory")?;
        let placed = ContainerFiles {
            directory: std::sync::Arc::new(directory),
        };
        placed.show(files)?;
        let mut here: Vec<String> = arguments.to_vec();
        for path in files.keys() {
            let place = placed.place(path).display().to_string();
            for argument in &mut here {
                *argument = argument.replace(&format!("={path}/"), &format!("={place}/"));
            }
        }
        here.push(format!("--bind-address={address}"));
        let log = placed.directory.path().join("log");
        let process = Guarded::start(&binaries.join("kube-apiserver"), &here, &log)?;
        Ok(Self {
            process,
            files: placed,
        })
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> ContainerFiles {
        self.files.clone()
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.files.directory.path().join("log");
        let bytes = std::fs::read(log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills it and starts it again in place, with the files as they are now.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process.restart()
    }

    /// An error with the end of the log when it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_running(&mut self) -> Result<()> {
        self.process.still_running()
    }
}

impl ContainerFiles {
    /// Shows `files` as a kubelet does: all of a volume at once, by turning the link `..data`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn show(&self, files: &MountedFiles) -> Result<()> {
        for (path, contents) in files {
            let place = self.place(path);
            let contents = &here(contents, path, &place);
            std::fs::create_dir_all(&place).context("making a volume")?;
            let old = std::fs::read_link(place.join("..data")).ok();
            if old.is_some_and(|old| is_same(&place.join(old), contents)) {
                continue;
            }
            turn(&place, contents).with_context(|| format!("showing the files of {path}"))?;
        }
        Ok(())
    }

    /// Where a path of the container is.
    #[must_use]
    pub fn place(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }
}

/// Fields of files that name others.
const NAMING: [&str; 2] = ["kubeConfigFile", "staticManifestsDir"];

/// The files themselves name others by the container's path.
fn here(
    contents: &BTreeMap<String, Vec<u8>>,
    path: &str,
    place: &Path,
) -> BTreeMap<String, Vec<u8>> {
    let moved = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) => NAMING
            .iter()
            .fold(text.to_owned(), |text, field| {
                let from = format!("{field}: {path}/");
                text.replace(&from, &format!("{field}: {}/", place.display()))
            })
            .into_bytes(),
        Err(_) => bytes.clone(),
    };
    let contents = contents.iter();
    contents
        .map(|(name, bytes)| (name.clone(), moved(bytes)))
        .collect()
}

fn is_same(directory: &Path, contents: &BTreeMap<String, Vec<u8>>) -> bool {
    let names = std::fs::read_dir(directory).map_or(0, Iterator::count);
    let same = |(name, bytes): (&String, &Vec<u8>)| {
        std::fs::read(directory.join(name)).is_ok_and(|there| there == *bytes)
    };
    let wanted: BTreeSet<&str> = contents.keys().map(|name| first(name)).collect();
    names == wanted.len() && contents.iter().all(same)
}

/// What a name is in the volume itself: a file, or the directory that it is in.
fn first(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// As a kubelet does (`k8s.io/kubernetes/pkg/volume/util/atomic_writer.go`), which also takes away what was shown before.
fn turn(place: &Path, contents: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let old = std::fs::read_link(place.join("..data")).ok();
    let fresh = tempfile::Builder::new()
        .prefix("..")
        .tempdir_in(place)?
        .keep();
    for (name, bytes) in contents {
        let file = fresh.join(name);
        std::fs::create_dir_all(file.parent().context("a directory")?)?;
        std::fs::write(file, bytes)?;
        let link = place.join(first(name));
        if !link.is_symlink() {
            symlink(Path::new("..data").join(first(name)), link)?;
        }
    }
    let turned = place.join("..data_tmp");
    let name = fresh.file_name().context("a name")?;
    symlink(name, &turned)?;
    std::fs::rename(turned, place.join("..data"))?;
    if let Some(old) = old {
        std::fs::remove_dir_all(place.join(old))?;
    }
    Ok(())
}
