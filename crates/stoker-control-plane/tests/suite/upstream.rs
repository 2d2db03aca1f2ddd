//! Every flag exists in the real binaries, where the lab has already built them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::scenario::{Scenario, pod, spec};

/// The lab's cache, as `stoker-lab` finds it, and in it the newest entry of each release.
fn built_releases() -> Vec<(String, PathBuf)> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("STOKER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("stoker")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/stoker")));
    let entries = cache.and_then(|cache| std::fs::read_dir(cache.join("entries")).ok());
    let mut releases = Vec::new();
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        // kubernetes-<version>-<hash>
        let version = name
            .strip_prefix("kubernetes-")
            .and_then(|rest| rest.rsplit_once('-'));
        if let Some((version, _)) = version
            && entry.path().join("kube-apiserver").exists()
        {
            let version = version.trim_start_matches('v');
            releases.push((format!("v{version}"), entry.path()));
        }
    }
    releases
}

#[test]
fn every_flag_exists_in_every_release_at_hand() {
    let releases = built_releases();
    if releases.is_empty() {
        println!("not checked: the lab has built no Kubernetes yet (make up)");
    }
    for (version, directory) in releases {
        let scenario = Scenario::new(&spec("ClusterIP", 1, &version, &json!({})), None);
        for container in &pod(&scenario.build()).containers {
            let help = Command::new(directory.join(&container.name))
                .arg("--help")
                .output()
                .unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            let known: BTreeSet<&str> = help
                .lines()
                .filter_map(|line| {
                    line.trim_start()
                        .split(' ')
                        .find(|word| word.starts_with("--"))
                })
                .collect();
            assert!(known.len() > 50, "{} --help lists no flags", container.name);
            for flag in container.args.iter().flatten() {
                let name = flag.split('=').next().unwrap();
                assert!(
                    known.contains(name),
                    "{} {version} has no {name}",
                    container.name
                );
            }
        }
    }
}
