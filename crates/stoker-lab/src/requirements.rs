//! What the machine must have, and how a person mends what it lacks.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Uid;

use crate::command::{program, run};
use crate::machine::Machine;
use crate::steps::Steps;

/// Free space that a lab with some tenants and workers takes.
const LAB_GIB: u64 = 5;

/// A program that the lab runs and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("gcc", "gcc"),
    ("getcap", "libcap2-bin"),
    ("ip", "iproute2"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("kmod", "kmod"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("sysctl", "procps"),
    ("systemctl", "systemd"),
    ("unshare", "util-linux"),
];
/// Files that the lab needs and the Debian package that has them.
const FILES: &[(&str, &str)] = &[
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/tuning", "containernetworking-plugins"),
    (
        "/etc/containers/policy.json",
        "golang-github-containers-common",
    ),
];

/// Checks the machine and installs missing Debian packages.
///
/// # Errors
/// Says what is missing and how to mend it.
pub async fn meet(steps: &Steps, machine: &Machine) -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "the lab needs Linux");
    ensure!(
        Uid::effective().is_root(),
        "the lab makes network and mount namespaces and must run as root: try `sudo make up`"
    );
    let state = Path::new(crate::paths::STATE);
    std::fs::create_dir_all(state).with_context(|| format!("making {}", state.display()))?;
    ensure_space(state, LAB_GIB, "mount a larger disk there")?;
    let missing = machine.control_groups.missing_controllers();
    ensure!(
        missing.is_empty(),
        "the control groups of this machine (cgroup v2) lack the controllers {}: boot without cgroup v1, or give them \
         to the container that this is",
        missing.join(", ")
    );
    install_missing(steps).await?;
    ensure!(
        on_path("go"),
        "Go is missing, with which upstream components are built: install Go 1.26 or newer from your \
         distribution or go.dev, and put it on PATH"
    );
    ensure_kernel().await
}

/// Refuses when `path` has less than `needed` GiB free; `otherwise` is what helps beside making room.
pub(crate) fn ensure_space(path: &Path, needed: u64, otherwise: &str) -> Result<()> {
    let disk = nix::sys::statvfs::statvfs(path)
        .with_context(|| format!("looking at the disk of {}", path.display()))?;
    let free = (disk.blocks_available() * disk.fragment_size()) >> 30;
    ensure!(
        free >= needed,
        "{} has {free} GiB free and {needed} are needed: make room, or {otherwise}",
        path.display()
    );
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing = Vec::new();
    for &(tool, package) in TOOLS {
        if !on_path(tool) {
            missing.push(package);
        }
    }
    let files = FILES.iter().filter(|(file, _)| !Path::new(file).exists());
    missing.extend(files.map(|(_, package)| *package));
    missing.sort_unstable();
    missing.dedup();
    missing
}

async fn install_missing(steps: &Steps) -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !on_path("apt-get") {
        bail!(
            "missing programs; install what your distribution calls these Debian packages: {list}"
        );
    }
    let install = async {
        let updated = run(&mut program("apt-get", ["update", "-qq"])).await;
        let mut command = program(
            "apt-get",
            ["install", "-qq", "-y", "--no-install-recommends"],
        );
        let installed = run(command
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"))
        .await;
        // One source of several that is away fails the update and need not matter.
        match (installed, updated) {
            (Err(error), Err(why)) => Err(error.context(format!("{why:#}"))),
            (installed, _) => installed,
        }
    };
    steps
        .step(format!("installing Debian packages: {list}"), install)
        .await
        .with_context(|| format!("try it by hand: apt-get update && apt-get install {list}"))?;
    let still = missing_packages();
    ensure!(
        still.is_empty(),
        "still missing after the installation: {}",
        still.join(" ")
    );
    Ok(())
}

async fn ensure_kernel() -> Result<()> {
    for (module, proof) in [
        (
            "br_netfilter",
            "/proc/sys/net/bridge/bridge-nf-call-iptables",
        ),
        ("overlay", "/sys/module/overlay"),
    ] {
        if Path::new(proof).exists() || kernel_knows(module) {
            continue;
        }
        run(&mut program("modprobe", [module]))
            .await
            .with_context(|| {
                format!(
                    "the kernel has no {module}; load or build that module (`modprobe {module}`)"
                )
            })?;
    }
    Ok(())
}

fn kernel_knows(file_system: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(file_system))
}

/// Whether a program is on `PATH`, or where administrators' programs are.
fn on_path(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path
        .split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    directories
        .map(|directory| Path::new(directory).join(name))
        .any(|file| file.is_file())
}
