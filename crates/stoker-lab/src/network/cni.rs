//! Pod addresses from libcni's result cache, which has them before the kubelet reports them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::sync::Notify;

use super::facts::{CniAddresses, PodKey};

/// One file of the cache (libcni `cachedInfo`, kind `cniCacheV1`), of which only this is read.
#[derive(Deserialize)]
struct CachedResult {
    #[serde(rename = "cniArgs", default)]
    arguments: Vec<(String, String)>,
    result: NetworkResult,
}

#[derive(Deserialize)]
struct NetworkResult {
    #[serde(default)]
    ips: Vec<InterfaceAddress>,
}

#[derive(Deserialize)]
struct InterfaceAddress {
    address: IpNet,
}

impl CachedResult {
    fn argument(&self, name: &str) -> Option<String> {
        self.arguments
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }

    fn pod(&self) -> Option<PodKey> {
        Some(PodKey {
            namespace: self.argument("K8S_POD_NAMESPACE")?,
            name: self.argument("K8S_POD_NAME")?,
            uid: self.argument("K8S_POD_UID")?,
        })
    }
}

/// Reads the addresses of every pod that the CNI plugins have set up and not torn down.
///
/// Files that vanish or are half written are passed over; their completion wakes the watch again.
pub(super) fn addresses(folder: &Path) -> CniAddresses {
    let mut found = CniAddresses::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        let Ok(cached) = serde_json::from_reader::<_, CachedResult>(file) else {
            continue;
        };
        if let Some(pod) = cached.pod() {
            // containerd sets up `lo` through CNI as well, with the same 127.0.0.1 for every pod.
            let addresses = cached.result.ips.iter().map(|ip| ip.address.addr());
            let addresses = addresses.filter(|address| !address.is_loopback());
            found.entry(pod).or_default().extend(addresses);
        }
    }
    found
}

/// Notifies `changed` whenever a result was written. The thread lives as long as the process.
pub(super) fn watch(folder: &Path, changed: Arc<Notify>) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("create the CNI result cache {}", folder.display()))?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("start inotify")?;
    inotify
        .add_watch(
            folder,
            AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO,
        )
        .with_context(|| format!("watch {}", folder.display()))?;
    std::thread::Builder::new()
        .name("cni-results".into())
        .spawn(move || {
            while inotify.read_events().is_ok() {
                changed.notify_one();
            }
        })
        .context("start the thread that watches CNI results")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = r#"{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0",
        "networkName":"lab","netns":"/run/netns/x",
        "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","a"],["K8S_POD_NAME","web"],["K8S_POD_UID","u1"]],
        "result":{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.254","interface":2},
            {"address":"fd00::5/64"}]}}"#;

    const LOOPBACK: &str = r#"{"kind":"cniCacheV1","containerId":"c1","ifName":"lo",
        "networkName":"cni-loopback",
        "cniArgs":[["K8S_POD_NAMESPACE","a"],["K8S_POD_NAME","web"],["K8S_POD_UID","u1"]],
        "result":{"cniVersion":"0.3.1","ips":[{"version":"4","interface":0,"address":"127.0.0.1/8"},
            {"version":"6","interface":0,"address":"::1/128"}]}}"#;

    #[test]
    fn addresses_are_read_by_pod_and_broken_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lab-c1-eth0"), RESULT).unwrap();
        std::fs::write(folder.path().join("cni-loopback-c1-lo"), LOOPBACK).unwrap();
        std::fs::write(folder.path().join("other"), r#"{"result":{}}"#).unwrap();
        std::fs::write(folder.path().join("lab-c2-eth0"), &RESULT[..90]).unwrap();
        let key = PodKey {
            namespace: "a".into(),
            name: "web".into(),
            uid: "u1".into(),
        };
        let expected = vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(
            addresses(folder.path()),
            CniAddresses::from([(key, expected)])
        );
        assert!(addresses(&folder.path().join("missing")).is_empty());
    }

    #[tokio::test]
    async fn a_written_result_wakes_the_watcher() {
        let folder = tempfile::tempdir().unwrap();
        let changed = Arc::new(Notify::new());
        watch(&folder.path().join("results"), changed.clone()).unwrap();
        std::fs::write(folder.path().join("results/lab-c1-eth0"), RESULT).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), changed.notified())
            .await
            .unwrap();
    }
}
