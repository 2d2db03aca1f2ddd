//! Every file that a flag or kubeconfig names is there, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stoker_control_plane::Objects;

use crate::scenario::{cluster_ip, pod, secrets};

/// Paths in a container and what is in them.
fn files(objects: &Objects, container: usize) -> BTreeMap<String, String> {
    let pod = pod(objects);
    let Some(mounts) = pod.containers[container].volume_mounts.as_ref() else {
        return BTreeMap::new();
    };
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].sub_path, None, "a subPath is never updated");
    let volume = pod
        .volumes
        .as_ref()
        .unwrap()
        .iter()
        .find(|v| v.name == mounts[0].name)
        .unwrap();
    let projected = volume.projected.as_ref().unwrap();
    assert_eq!(projected.default_mode, Some(0o440));
    let mut files = BTreeMap::new();
    for source in projected.sources.iter().flatten() {
        assert!(source.service_account_token.is_none());
        let (name, items, is_secret) = match (&source.secret, &source.config_map) {
            (Some(secret), None) => (&secret.name, &secret.items, true),
            (None, Some(map)) => (&map.name, &map.items, false),
            other => panic!("{other:?}"),
        };
        for item in items.iter().flatten() {
            let text = content(objects, is_secret, name, &item.key);
            let known = files.insert(format!("{}/{}", mounts[0].mount_path, item.path), text);
            assert_eq!(known, None, "{} is there twice", item.path);
        }
    }
    files
}

fn content(objects: &Objects, is_secret: bool, name: &str, key: &str) -> String {
    if is_secret {
        let secrets = secrets(objects);
        let secret = secrets
            .iter()
            .find(|s| s.metadata.name.as_deref() == Some(name))
            .unwrap();
        String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
    } else {
        let maps = &objects.config_maps;
        let map = maps
            .iter()
            .find(|m| m.metadata.name.as_deref() == Some(name))
            .unwrap();
        map.data.as_ref().unwrap()[key].clone()
    }
}

#[test]
fn each_container_has_exactly_the_files_that_it_names() {
    let objects = cluster_ip().build();
    for (index, container) in pod(&objects).containers.iter().enumerate() {
        let files = files(&objects, index);
        let flags = container
            .args
            .iter()
            .flatten()
            .filter_map(|flag| flag.split_once('='));
        let mut named: BTreeSet<String> = flags
            .map(|(_, value)| value)
            .filter(|v| v.starts_with('/'))
            .map(str::to_owned)
            .collect();
        // The prefix in the pool looks like a path.
        named.retain(|path| path.starts_with("/etc/"));
        for text in files.values().filter(|text| {
            ["Config\n", "AuthorizationConfiguration\n"]
                .iter()
                .any(|kind| text.contains(&format!("kind: {kind}")))
        }) {
            let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
            let paths = lines.map(|(_, value)| value.trim_matches('"'));
            named.extend(
                paths
                    .filter(|path| path.starts_with("/etc/"))
                    .map(str::to_owned),
            );
        }
        let there: BTreeSet<_> = files.keys().cloned().collect();
        assert_eq!(named, there, "{}", container.name);
    }
}

#[test]
fn only_the_components_that_sign_have_signing_keys() {
    let objects = cluster_ip().build();
    let keys = |container| -> Vec<String> {
        let paths = files(&objects, container).into_keys();
        paths
            .filter(|path| Path::new(path).extension() == Some("key".as_ref()))
            .collect()
    };
    let mount = "/etc/kubernetes";
    assert!(
        !keys(0).contains(&format!("{mount}/ca.key")),
        "the API server signs no certificates"
    );
    assert_eq!(
        keys(1),
        ["ca.key", "controller-manager.key", "sa.key"].map(|k| format!("{mount}/{k}"))
    );
    assert_eq!(keys(2), [format!("{mount}/scheduler.key")]);
    assert!(
        files(&objects, 3).is_empty(),
        "the warden has no file at all"
    );
}
