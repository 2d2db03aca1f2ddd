//! Every flag exists in the real binaries, where the lab has already built them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use stoker_api::arguments::{Component, FIXED_GATES};
use stoker_api::version::KubernetesVersion;
use stoker_api::{admission_plugins, feature_gates};

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

fn help(binary: &Path) -> String {
    let help = Command::new(binary).arg("--help").output().unwrap();
    String::from_utf8(help.stdout).unwrap()
}

/// Names of flags with their dashes, short ones too.
fn flags(help: &str) -> BTreeSet<&str> {
    let words = help
        .lines()
        .flat_map(|line| line.trim_start().split([' ', ',']).take(3));
    words.filter(|word| word.starts_with('-')).collect()
}

/// The lists that generated specs are held against.
#[test]
fn the_flag_oracle_lists_what_the_releases_at_hand_have() {
    for (version, directory) in built_releases() {
        for component in Component::ALL {
            let Some(listed) = crate::flag_oracle::listed(component.binary(), &version) else {
                continue;
            };
            let help = help(&directory.join(component.binary()));
            let known = flags(&help).into_iter();
            let known: BTreeSet<&str> = known.filter_map(|flag| flag.strip_prefix("--")).collect();
            let unknown: Vec<_> = listed.difference(&known).collect();
            assert!(unknown.is_empty(), "{component:?} {version}: {unknown:?}");
        }
    }
}

/// An argument that a release does not know would keep its control plane from starting.
#[test]
fn every_argument_of_the_allow_list_exists_in_every_release_at_hand() {
    for (version, directory) in built_releases() {
        for component in Component::ALL {
            let help = help(&directory.join(component.binary()));
            let known = flags(&help);
            let unknown: Vec<_> = component
                .allowed()
                .filter(|name| !known.contains(name))
                .collect();
            assert!(unknown.is_empty(), "{component:?} {version}: {unknown:?}");
        }
    }
}

/// kube-apiserver prints the plugins that it was built with.
#[test]
fn admission_plugins_are_those_of_every_release_at_hand() {
    for (version, directory) in built_releases() {
        let help = help(&directory.join("kube-apiserver"));
        let (_, list) = help
            .split_once("Comma-delimited list of admission plugins: ")
            .unwrap();
        let (list, _) = list.split_once(". The order").unwrap();
        let mut built_in: BTreeSet<&str> = list.split(", ").collect();
        assert!(built_in.remove("AlwaysDeny"));
        let release: KubernetesVersion = version.parse().unwrap();
        let ours: BTreeSet<&str> = admission_plugins::of(release.minor).collect();
        assert_eq!(ours, built_in, "{version}");
    }
}

/// The gates of a component of a release are alike, kubelets' too: a table for all of them.
#[test]
fn feature_gates_are_those_of_every_release_at_hand() {
    for (version, directory) in built_releases() {
        let release: KubernetesVersion = version.parse().unwrap();
        let binaries = Component::ALL.map(Component::binary);
        for binary in binaries.into_iter().chain(["kubelet"]) {
            let help = help(&directory.join(binary));
            let words = help.split_whitespace();
            let mut listed: BTreeSet<&str> = words
                .filter_map(|word| word.strip_suffix("=true|false"))
                .map(|name| name.trim_start_matches("kube:"))
                // Not the keys of --runtime-config.
                .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
                .collect();
            for gate in FIXED_GATES {
                assert!(listed.remove(gate), "{binary} {version} has no {gate}");
            }
            let ours: BTreeSet<&str> = feature_gates::of(release.minor).collect();
            assert_eq!(
                ours, listed,
                "{binary} {version}: run hack/feature-gates.py"
            );
        }
    }
}

#[test]
fn every_flag_exists_in_every_release_at_hand() {
    let releases = built_releases();
    if releases.is_empty() {
        println!("not checked: the lab has built no Kubernetes yet (make up)");
    }
    for (version, directory) in releases {
        let scenario = Scenario::new(&spec("ClusterIP", 1, &version, &json!({})), None);
        let objects = scenario.build();
        let stock = pod(&objects)
            .containers
            .iter()
            .filter(|container| container.name != "stoker-warden");
        for container in stock {
            let help = help(&directory.join(&container.name));
            let known = flags(&help);
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
