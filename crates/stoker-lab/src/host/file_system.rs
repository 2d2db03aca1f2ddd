//! The host's own view of the file system: what it writes lands in its state and nowhere on the machine.
//!
//! ```text
//! /etc, /usr/libexec   overlay: the machine's, with the host's changes in its state
//! /run                 empty, in memory
//! /var/lib             the host's own, in its state (kubelet, containerd, cni)
//! /var/log             the host's own, in its state
//! ```
//! `/sys` stays the machine's, as mounting it again would lose the control groups.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use super::supervisor::HostSetup;

/// `OverlayFS` needs an empty directory of its own beside the one for changes.
const OVERLAYS: [(&str, &str); 2] = [("/etc", "etc"), ("/usr/libexec", "libexec")];

pub(super) fn set_up(setup: &HostSetup) -> Result<()> {
    for (target, name) in OVERLAYS {
        overlay(target, &setup.state, name)?;
    }
    let lib = setup.state.join("var-lib");
    for kept in &setup.keep {
        let below = kept
            .strip_prefix("/var/lib")
            .context("kept directories are in /var/lib")?;
        bind(kept, &lib.join(below))?;
    }
    bind(&lib, Path::new("/var/lib"))?;
    bind(&setup.state.join("var-log"), Path::new("/var/log"))?;
    let nothing: Option<&str> = None;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mounting /run")?;
    // Containers' mounts in volumes must be seen by the kubelet and the other way round.
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        nothing,
    )
    .context("making the mounts shared inside the host")
}

fn overlay(target: &str, state: &Path, name: &str) -> Result<()> {
    let upper = state.join(name);
    let work = state.join(format!("{name}-work"));
    for directory in [&upper, &work] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
    }
    let options = format!(
        "lowerdir={target},upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| format!("mounting an overlay on {target}"))
}

/// Mounts one at the other; directories are made where nothing is.
pub(super) fn bind(source: &Path, target: &Path) -> Result<()> {
    for path in [source, target].into_iter().filter(|path| !path.exists()) {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    }
    let nothing: Option<&str> = None;
    mount(
        Some(source),
        target,
        nothing,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        nothing,
    )
    .with_context(|| format!("mounting {} on {}", source.display(), target.display()))
}
