//! A host whose first process is systemd, as on machines that people have: it knows the few stock units below and what is
//! written to the host's `/etc/systemd/system`, none of the machine's units.
//!
//! The host's own programs are one unit among these. What units say is in `<host>/log/<unit>.log`.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Error, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use super::file_system::bind;
use super::supervisor::HostSetup;

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNITS: &str = "/lib/systemd/system";
const UNITS_OF_HOST: &str = "/etc/systemd/system";
/// What makes units of the machine's own configuration.
const GENERATORS: [&str; 2] = [
    "/lib/systemd/system-generators",
    "/lib/systemd/system-environment-generators",
];
const STOCK: [&str; 7] = [
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "shutdown.target",
    "sysinit.target",
    "umount.target",
];
const DEVICES: [&str; 7] = ["full", "kmsg", "null", "random", "tty", "urandom", "zero"];
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// systemd raises them for the whole machine.
const LIMITS: &str = "/proc/sys/fs";

/// What systemd needs of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Systemd {
    /// Its control group, in each tree in which it keeps its units.
    pub(crate) groups: Vec<PathBuf>,
}

impl Systemd {
    /// Goes on as systemd in this process, which runs the supervisor as one of its units.
    pub(super) fn become_it(&self, setup: &HostSetup) -> Result<()> {
        ensure!(
            Path::new(SYSTEMD).is_file(),
            "{SYSTEMD} is not there: install the Debian package systemd"
        );
        units(setup)?;
        devices(&setup.state.join("dev"))?;
        control_groups(&setup.state.join("control-groups"))?;
        bind(Path::new(LIMITS), Path::new(LIMITS))?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount_at(None, LIMITS.as_ref(), None, read_only)?;
        for group in &self.groups {
            std::fs::write(group.join("cgroup.procs"), "0")
                .with_context(|| format!("entering {}", group.display()))?;
        }
        let mut command = Command::new(SYSTEMD);
        command
            .args([
                "--system",
                "--unit=multi-user.target",
                "--show-status=no",
                "--log-target=null",
            ])
            .env_clear()
            // Mounts, clock and kernel are somebody else's.
            .env("container", "stoker-lab")
            // The kernel's log is the machine's.
            .env("SYSTEMD_LOG_TARGET", "null")
            .env("PATH", &setup.search_path);
        Err(Error::from(command.exec()).context("starting systemd"))
    }
}

fn units(setup: &HostSetup) -> Result<()> {
    let stock = setup.state.join("units");
    let logged = stock.join("service.d");
    let wanted = stock.join("multi-user.target.wants");
    for directory in [&logged, &wanted] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
    }
    for unit in STOCK {
        std::fs::copy(Path::new(UNITS).join(unit), stock.join(unit))
            .with_context(|| format!("copying {unit}"))?;
    }
    let log = setup.state.join("log/%p.log");
    let log = log.display();
    std::fs::write(
        logged.join("log.conf"),
        format!("[Service]\nStandardOutput=append:{log}\nStandardError=inherit\n"),
    )?;
    let program = std::env::current_exe().context("finding this program")?;
    let (program, state) = (program.display(), setup.state.display());
    std::fs::write(
        stock.join("stoker-lab.service"),
        format!("[Service]\nExecStart={program} supervise {state}\nRestart=always\n"),
    )?;
    let link = wanted.join("stoker-lab.service");
    if link.symlink_metadata().is_err() {
        symlink("../stoker-lab.service", &link).context("wanting the host's programs")?;
    }
    bind(&stock, Path::new(UNITS))?;
    bind(&setup.state.join("own-units"), Path::new(UNITS_OF_HOST))?;
    for generators in GENERATORS.map(Path::new) {
        if generators.is_dir() {
            mount_at(Some("tmpfs"), generators, None, MsFlags::empty())?;
        }
    }
    Ok(())
}

/// It makes files in `/dev`, and writes to the console: the host gets its own, with none.
fn devices(own: &Path) -> Result<()> {
    std::fs::create_dir_all(own).context("making the host's /dev")?;
    mount_at(Some("tmpfs"), own, Some("mode=755"), MsFlags::empty())?;
    for name in DEVICES {
        let device = own.join(name);
        std::fs::write(&device, "").with_context(|| format!("making {}", device.display()))?;
        bind(&Path::new("/dev").join(name), &device)?;
    }
    let (terminals, memory) = (own.join("pts"), own.join("shm"));
    for directory in [&terminals, &memory] {
        std::fs::create_dir(directory).context("making a directory in the host's /dev")?;
    }
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    mount_at(Some("devpts"), &terminals, options, MsFlags::empty())?;
    mount_at(Some("tmpfs"), &memory, Some("mode=1777"), MsFlags::empty())?;
    symlink("pts/ptmx", own.join("ptmx")).context("making the host's /dev/ptmx")?;
    bind(own, Path::new("/dev"))
}

/// Of v1, systemd mounts every controller of the kernel's beside the trees that are there, and makes the file system that has the
/// mount points read-only, for the whole machine: the host gets its own, in which nothing can be mounted.
fn control_groups(own: &Path) -> Result<()> {
    let all = Path::new(CONTROL_GROUPS);
    if all.join("cgroup.procs").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(own).context("making the host's control groups")?;
    mount_at(Some("tmpfs"), own, Some("mode=755"), MsFlags::empty())?;
    let trees = std::fs::read_dir(all).context("looking at the control groups")?;
    for tree in trees.flatten() {
        bind(&tree.path(), &own.join(tree.file_name()))?;
    }
    mount_at(
        None,
        own,
        Some("mode=755"),
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
    )?;
    bind(own, all)
}

fn mount_at(kind: Option<&str>, at: &Path, options: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(kind, at, kind, flags, options).with_context(|| format!("mounting {}", at.display()))
}
