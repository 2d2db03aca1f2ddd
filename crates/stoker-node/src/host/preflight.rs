//! Whether this machine can be a node, before anything of it is changed.
//!
//! The facts are gathered first ([`Facts::gather`]); what is wrong with them is pure ([`findings`]).

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use stoker_api::is_node_name;

use super::files;
use super::paths::{KUBECONFIG, MANIFESTS, Membership};

/// Certificates and keys of a kubelet.
const PKI: &str = "/var/lib/kubelet/pki";
/// The kubelet's port.
const PORT: u16 = 10250;
/// A certificate that is valid from five minutes ago is not yet valid for a clock behind by more.
const CLOCK: i64 = 240;
/// kubelets may be so many minor versions older than API servers (Kubernetes' version skew policy).
const SKEW: u32 = 3;

/// What was found on the machine.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Facts {
    root: bool,
    node: String,
    /// As `kubelet --version` says it.
    kubelet: Option<String>,
    /// Why the container runtime's socket is of no use.
    runtime: Option<String>,
    swap: bool,
    forwards: bool,
    bridge: bool,
    control_groups: u8,
    /// Whether somebody listens on the kubelet's port.
    port_taken: bool,
    /// Files of a node, of which this is no membership of ours.
    foreign: Vec<String>,
}

/// Something to be mended or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whether the machine cannot join so.
    pub(crate) fatal: bool,
    /// A word by which it can be ignored.
    pub(crate) name: &'static str,
    /// What is wrong, and the way out.
    pub(crate) message: String,
}

impl Facts {
    /// Of this machine; `member` is what it has joined or begun to join.
    ///
    /// # Errors
    /// It cannot be read whose the kubelet's files are.
    pub(crate) fn gather(node: &str, runtime: &str, member: Option<&Membership>) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kubelet = Command::new("kubelet").arg("--version").output().ok();
        let kubelet = kubelet.filter(|output| output.status.success());
        // Before it was let in, nothing of a node is this one's; and others may have come since.
        let is_ours = match member {
            Some(member) => member.let_in && files::are_of(member)?,
            None => false,
        };
        let foreign = if is_ours {
            Vec::new()
        } else {
            occupied(Path::new("/"))
        };
        Ok(Self {
            root: nix::unistd::geteuid().is_root(),
            node: node.to_owned(),
            kubelet: kubelet.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()),
            runtime: runtime_trouble(runtime),
            swap: read("/proc/swaps").lines().count() > 1,
            forwards: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            bridge: Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
            control_groups: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
                2
            } else {
                1
            },
            port_taken: !is_ours && TcpListener::bind(("0.0.0.0", PORT)).is_err(),
            foreign,
        })
    }
}

/// Files of a node below `root`, by their places.
fn occupied(root: &Path) -> Vec<String> {
    let is_there = |path: &&str| root.join(path.trim_start_matches('/')).exists();
    let has_entries = |path: &&str| {
        let entries = fs::read_dir(root.join(path.trim_start_matches('/')));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    };
    let files = [KUBECONFIG, "/etc/kubernetes/admin.conf"];
    let files = files.into_iter().filter(is_there);
    let folders = [MANIFESTS, PKI].into_iter().filter(has_entries);
    files.chain(folders).map(str::to_owned).collect()
}

fn runtime_trouble(endpoint: &str) -> Option<String> {
    let Some(path) = endpoint.strip_prefix("unix://") else {
        return Some(format!("{endpoint:?} is not unix:///path"));
    };
    match fs::metadata(path) {
        Err(error) => Some(format!("{path}: {error}")),
        Ok(found) if !found.file_type().is_socket() => Some(format!("{path} is no socket")),
        Ok(_) => UnixStream::connect(path)
            .err()
            .map(|error| format!("{path}: {error}")),
    }
}

/// What is wrong on the machine itself.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |holds: bool, fatal, name, message: String| {
        if holds {
            found.push(Finding {
                fatal,
                name,
                message,
            });
        }
    };
    let node = &facts.node;
    add(
        !facts.root,
        true,
        "root",
        "this needs root: run it with sudo".to_owned(),
    );
    add(
        !is_node_name(node),
        true,
        "name",
        format!(
            "{node:?} cannot be a node's name, which is a DNS name in lower case: give --node-name"
        ),
    );
    add(
        facts.kubelet.is_none(),
        true,
        "kubelet",
        "there is no kubelet in PATH that says its version: install the one of the tenant's version".to_owned(),
    );
    let runtime = facts.runtime.clone().unwrap_or_default();
    add(
        facts.runtime.is_some(),
        true,
        "runtime",
        format!(
            "the container runtime does not answer: {runtime}; start containerd, or give --runtime"
        ),
    );
    add(
        facts.swap,
        false,
        "swap",
        "swap is on: a kubelet refuses to start unless its configuration has failSwapOn: false (swapoff -a)".to_owned(),
    );
    add(
        !facts.forwards,
        true,
        "forwarding",
        "packets are not forwarded: sysctl -w net.ipv4.ip_forward=1, and put it into /etc/sysctl.d"
            .to_owned(),
    );
    add(
        !facts.bridge,
        false,
        "bridge",
        "br_netfilter is not loaded, which pod networks over bridges may need: modprobe br_netfilter".to_owned(),
    );
    add(
        facts.control_groups == 1,
        false,
        "cgroups",
        "control groups are of version 1, which kubelets from 1.35 on refuse unless configured otherwise".to_owned(),
    );
    add(
        facts.port_taken,
        true,
        "port",
        format!("somebody listens on port {PORT}, the kubelet's: stop it"),
    );
    add(
        !facts.foreign.is_empty(),
        true,
        "occupied",
        format!(
            "this machine is a node of something else ({}): kubeadm reset, or remove what is left of it",
            facts.foreign.join(", ")
        ),
    );
    found
}

/// What is wrong between the machine and a tenant of this version.
pub(crate) fn findings_with(facts: &Facts, version: &str, ahead: i64) -> Vec<Finding> {
    let mut found = Vec::new();
    let kubelet = facts.kubelet.as_deref().and_then(minor);
    if let (Some(kubelet), Some(server)) = (kubelet, minor(version))
        && (kubelet > server || server - kubelet > SKEW)
    {
        found.push(Finding {
            fatal: true,
            name: "version",
            message: format!(
                "the kubelet is 1.{kubelet} and the tenant {version}: a kubelet may be up to {SKEW} minor versions older, and not newer"
            ),
        });
    }
    if ahead.abs() > CLOCK {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        found.push(Finding {
            fatal: true,
            name: "clock",
            message: format!(
                "this machine's clock is {} s {way} the API server's: certificates would not be valid; set it, by NTP",
                ahead.abs()
            ),
        });
    }
    found
}

/// Of `Kubernetes v1.36.3` or `v1.36.3`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.trim().rsplit('v').next()?;
    rest.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Facts);

    fn good() -> Facts {
        Facts {
            root: true,
            node: "w1".to_owned(),
            kubelet: Some("Kubernetes v1.35.4\n".to_owned()),
            forwards: true,
            bridge: true,
            control_groups: 2,
            ..Facts::default()
        }
    }

    fn names(facts: &Facts) -> Vec<&'static str> {
        findings(facts).iter().map(|found| found.name).collect()
    }

    #[test]
    fn a_good_machine_has_no_findings_and_each_trouble_has_one() {
        assert!(findings(&good()).is_empty());
        let cases: [(Spoil, &str); 9] = [
            (|facts| facts.root = false, "root"),
            (|facts| facts.node = "W_1".to_owned(), "name"),
            (|facts| facts.kubelet = None, "kubelet"),
            (|facts| facts.runtime = Some("no".to_owned()), "runtime"),
            (|facts| facts.swap = true, "swap"),
            (|facts| facts.forwards = false, "forwarding"),
            (|facts| facts.bridge = false, "bridge"),
            (|facts| facts.port_taken = true, "port"),
            (|facts| facts.foreign = vec!["x".to_owned()], "occupied"),
        ];
        for (spoil, name) in cases {
            let mut facts = good();
            spoil(&mut facts);
            assert_eq!(names(&facts), [name]);
        }
    }

    #[test]
    fn what_another_node_has_left_is_found() {
        let root = tempfile::tempdir().unwrap();
        let pki = root.path().join("var/lib/kubelet/pki");
        fs::create_dir_all(&pki).unwrap();
        fs::create_dir_all(root.path().join("etc/kubernetes/manifests")).unwrap();
        assert!(occupied(root.path()).is_empty());
        fs::write(pki.join("kubelet-client-current.pem"), "").unwrap();
        fs::write(root.path().join("etc/kubernetes/kubelet.conf"), "").unwrap();
        assert_eq!(occupied(root.path()), [KUBECONFIG, PKI]);
    }

    #[test]
    fn a_kubelet_is_not_newer_and_not_four_versions_older() {
        let at = |version| findings_with(&good(), version, 0).len();
        assert_eq!((at("v1.35.0"), at("v1.38.0")), (0, 0));
        assert_eq!((at("v1.34.9"), at("v1.39.0")), (1, 1));
    }

    #[test]
    fn a_clock_that_certificates_do_not_survive_is_found() {
        let at = |ahead| findings_with(&good(), "v1.35.4", ahead).len();
        assert_eq!((at(0), at(-200), at(-300), at(3600)), (0, 0, 1, 1));
    }
}
