//! The `stoker-lab` program that hosts run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Lab;
use crate::paths::checkout;

impl Lab {
    /// Copies this program to where hosts run it from, so that a later build does not disturb them.
    pub(super) fn install_program(&self) -> Result<()> {
        let target = self.program();
        let source = find_program()?;
        let same = |path: &Path| {
            std::fs::metadata(path).and_then(|file| Ok((file.len(), file.modified()?)))
        };
        if let (Ok(new), Ok(old)) = (same(&source), same(&target))
            && new.0 == old.0
            && new.1 <= old.1
        {
            return Ok(());
        }
        let directory = target.parent().context("a file in a directory")?;
        std::fs::create_dir_all(directory).with_context(|| {
            format!(
                "making {}; run as root, and `make down` first if it is broken",
                directory.display()
            )
        })?;
        let new = target.with_extension("new");
        std::fs::copy(&source, &new).context("copying the stoker-lab program")?;
        std::fs::rename(&new, &target).context("installing the stoker-lab program")
    }
}

/// The `stoker-lab` program: this one, or, when a test runs, the one that Cargo built beside it.
fn find_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STOKER_LAB") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("finding this program")?;
    let name = "stoker-lab";
    let beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name));
    std::iter::once(this.clone())
        .filter(|path| path.file_name().is_some_and(|file| file == name))
        .chain(beside.filter(|path| path.is_file()))
        .next()
        .with_context(|| {
            format!(
                "there is no stoker-lab program beside {}; run `cargo build -p stoker-lab` in {}",
                this.display(),
                checkout().display()
            )
        })
}
