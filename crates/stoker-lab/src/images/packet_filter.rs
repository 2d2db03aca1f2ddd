//! The packet filter tools that kube-proxy calls inside its container, from this machine's packages, with the
//! libraries that they load.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::archive::Content;
use super::is_program;
use crate::command::{program, run};

/// Where Debian has them.
const DIRECTORY: &str = "/usr/sbin";
/// The multi-call programs behind the links below, nftables' own, and conntrack.
const PROGRAMS: [&str; 4] = [
    "xtables-nft-multi",
    "xtables-legacy-multi",
    "nft",
    "conntrack",
];
/// What kube-proxy calls; upstream's image decides between nft and legacy in the same way.
const LINKS: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

pub(super) async fn contents() -> Result<Vec<Content>> {
    let mut contents = Vec::new();
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let path = Path::new(DIRECTORY).join(name);
        if !is_program(&path) {
            bail!(
                "{} is missing: install the packages iptables, nftables and conntrack",
                path.display()
            );
        }
        libraries.extend(libraries_of(&path).await?);
        contents.push(Content::file(&path, &path.to_string_lossy()));
    }
    for extension in extensions()? {
        libraries.extend(libraries_of(&extension).await?);
        contents.push(Content::file(&extension, &extension.to_string_lossy()));
    }
    contents.extend(
        libraries
            .iter()
            .map(|path| Content::file(path, &path.to_string_lossy())),
    );
    contents.extend(
        LINKS.map(|name| Content::link("xtables-nft-multi", &format!("{DIRECTORY}/{name}"))),
    );
    Ok(contents)
}

/// iptables' matches and targets, loaded by name.
fn extensions() -> Result<Vec<PathBuf>> {
    let directory = "/usr/lib/x86_64-linux-gnu/xtables";
    let entries = std::fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "so"));
    found.sort();
    Ok(found)
}

/// The libraries that the dynamic linker would load, at the paths where it looks for them.
async fn libraries_of(path: &Path) -> Result<Vec<PathBuf>> {
    let said = run(program("ldd", [""; 0]).arg(path)).await?;
    Ok(said
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}
