//! Where things are on a node: kubeadm's places, and ours.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Authorities of the tenant, PEM.
pub(crate) const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// The kubelet's way to the API server.
pub(crate) const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The kubelet's configuration; written last of what it starts by.
pub(crate) const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Flags beside it, where kubeadm's drop-in for systemd reads them.
pub(crate) const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The node's certificate and key: a link that the kubelet turns to the newest.
pub(crate) const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The kubelet's serving certificate, a link too: it attests the node's addresses.
pub(crate) const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";
/// Everything of the kubelet.
pub(crate) const KUBELET: &str = "/var/lib/kubelet";
/// Static pods, which nobody but root puts there.
pub(crate) const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Ours.
pub(crate) const STATE: &str = "/var/lib/stoker-node";
/// What was joined.
const MEMBERSHIP: &str = "/var/lib/stoker-node/node.json";
/// The key of a join that is under way.
pub(crate) const KEY: &str = "/var/lib/stoker-node/join.key";
/// The key of a certificate that is asked for as long as the tenant's authority rotates.
pub(crate) const RENEWAL_KEY: &str = "/var/lib/stoker-node/renewal.key";
/// Since the kubelet last started there are other authorities or certificates: it is to be restarted, however long that fails.
pub(crate) const RESTART_DUE: &str = "/var/lib/stoker-node/restart-due";

/// What the tenant asks of `run`, and what the machine was given for it.
pub(crate) const ORDERS: &str = "/var/lib/stoker-node/orders.json";

/// The container runtime's socket, where nobody says another one.
pub(crate) const RUNTIME: &str = "unix:///run/containerd/containerd.sock";

fn default_runtime() -> String {
    RUNTIME.to_owned()
}

fn always() -> bool {
    true
}

/// What this machine is a node of, or asks to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// `host:port` of the API server.
    pub(crate) server: String,
    /// Its name there.
    pub(crate) node: String,
    /// `host:port` of the tunnel, where this service keeps one.
    pub(crate) tunnel: Option<String>,
    /// Socket of the container runtime that the kubelet works with. Files of earlier agents lack it.
    #[serde(default = "default_runtime")]
    pub(crate) runtime: String,
    /// `--node-ip` of the kubelet, where it is given.
    #[serde(default)]
    pub(crate) node_ip: Option<String>,
    /// What of the kubelet's configuration is this machine's own.
    #[serde(default)]
    pub(crate) kubelet_config: Value,
    /// Whether the tenant has given it a certificate; before that nothing but a key is made. Earlier agents wrote this file after.
    #[serde(default = "always")]
    pub(crate) let_in: bool,
    /// Whether the Node has come, with what the token gives.
    pub(crate) joined: bool,
    /// Since `leave` has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leaving: Option<Leaving>,
}

/// What `leave` has done to the Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    /// Of the Node that it was. Another one of its name is another machine.
    pub(crate) uid: String,
    /// Whether it is `leave` that has cordoned it.
    pub(crate) cordoned: bool,
    /// Whether it may be marked as left. Its name is free then, and this machine's no more.
    pub(crate) marked: bool,
    /// Whether the tenant has said yes to the mark: nothing is left to be told then.
    #[serde(default)]
    pub(crate) told: bool,
}

#[cfg(test)]
impl Leaving {
    /// It has cordoned the Node `uid`, and nothing more.
    pub(crate) fn cordoned(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            cordoned: true,
            marked: false,
            told: false,
        }
    }
}

impl Membership {
    /// `None` on a machine that has not begun to join.
    pub(crate) fn read() -> Result<Option<Self>> {
        match fs::read(MEMBERSHIP) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("reading {MEMBERSHIP}"))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {MEMBERSHIP}")),
        }
    }

    /// Whether its Node may be marked as left.
    pub(crate) fn is_marked(&self) -> bool {
        let leaving = self.leaving.as_ref();
        leaving.is_some_and(|leaving| leaving.marked)
    }

    pub(crate) fn write(&self) -> Result<()> {
        write(MEMBERSHIP, &serde_json::to_string_pretty(self)?, 0o600)
    }

    /// There is none any more, nor anything else of ours.
    pub(crate) fn forget() -> Result<()> {
        match fs::remove_dir_all(STATE) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {STATE}"))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file whole or not at all, with the directories above it.
pub(crate) fn write(path: &str, text: &str, mode: u32) -> Result<()> {
    let target = Path::new(path);
    let parent = target.parent().context("a file in a directory")?;
    let write = || {
        fs::create_dir_all(parent)?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = parent.join(name);
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, target)
    };
    write().with_context(|| format!("writing {path}"))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {path}"))
        }
        _ => Ok(()),
    }
}

/// Turns the link at `link` to `target`, at once.
pub(crate) fn link(target: &Path, link: &str) -> Result<()> {
    let new = PathBuf::from(format!("{link}.new"));
    let turn = || {
        if new.symlink_metadata().is_ok() {
            fs::remove_file(&new)?;
        }
        symlink(target, &new)?;
        fs::rename(&new, link)
    };
    turn().with_context(|| format!("linking {link}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_agent_wrote_is_read() {
        let text = r#"{ "server": "a:6443", "node": "w1", "tunnel": null, "joined": true }"#;
        let member: Membership = serde_json::from_str(text).unwrap();
        assert_eq!((&*member.runtime, member.let_in), (RUNTIME, true));
        assert_eq!(member.leaving, None);
    }
}
