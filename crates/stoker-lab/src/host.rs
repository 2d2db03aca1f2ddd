//! A host of the lab: a machine of its own as far as Kubernetes can tell.
//!
//! It is one process tree with its own network, mounts, host name and process numbers, joined to the lab's
//! bridge, with its own control group. See [`supervisor`] for what runs in it.

mod file_system;
pub mod supervisor;
mod systemd;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::addresses::Addresses;
use crate::command::{program, run};
use crate::names::resolver;
use crate::network_link;
use crate::paths::Paths;
use crate::process::Process;
use supervisor::{HostSetup, Program};
pub(crate) use systemd::Systemd;

/// File that is there once the host is on the bridge.
const LINKED: &str = "linked";

/// What a host is made from.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan<'a> {
    pub(crate) paths: &'a Paths,
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) addresses: Addresses,
    /// What it asks for names.
    pub(crate) name_servers: Vec<IpAddr>,
    /// Directories of upstream binaries, first in `PATH`.
    pub(crate) binaries: Vec<PathBuf>,
    /// The `stoker-lab` program.
    pub(crate) supervisor: PathBuf,
    /// The cache of upstream binaries, which the host must see.
    pub(crate) cache: PathBuf,
    /// What systemd needs, where it is to be the first process.
    pub(crate) systemd: Option<Systemd>,
}

/// A host that was made.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    state: PathBuf,
    address: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    search_path: String,
    has_systemd: bool,
}

impl Host {
    /// Makes the host when it does not run, and returns it.
    pub(crate) async fn start(plan: &HostPlan<'_>) -> Result<Self> {
        let state = plan.paths.host(plan.name);
        if let Ok(host) = Self::find(plan.paths, plan.name) {
            if host.is_running() && state.join(LINKED).exists() {
                return Ok(host);
            }
            // Half made by a run that was interrupted, or ended by a restart of the machine.
            host.stop().await?;
        }
        let setup = write_setup(plan, &state)?;
        let outer = spawn(&plan.supervisor, &state)?;
        let inner = first_process(&outer, &state).await?;
        inner.save(&state.join("process.json"))?;
        network_link::connect(plan.addresses, plan.paths.lab(), inner.pid, plan.address).await?;
        std::fs::write(state.join(LINKED), "").context("saying that the host is linked")?;
        Ok(Self {
            name: plan.name.to_owned(),
            state,
            address: plan.address,
            ipv6: plan.addresses.ipv6(plan.address),
            search_path: setup.search_path,
            has_systemd: setup.systemd.is_some(),
        })
    }

    /// The host `name` of a lab, running or not.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(paths: &Paths, name: &str) -> Result<Self> {
        let state = paths.host(name);
        let read = |file: &str| std::fs::read_to_string(state.join(file));
        let (Ok(address), Ok(setup)) = (read("address"), read("host.json")) else {
            bail!("the lab `{}` has no host `{name}`", paths.lab());
        };
        let setup: HostSetup = serde_json::from_str(&setup).context("reading host.json")?;
        Ok(Self {
            name: name.to_owned(),
            address: address
                .trim()
                .parse()
                .context("reading the host's address")?,
            ipv6: read("ipv6").ok().and_then(|text| text.trim().parse().ok()),
            search_path: setup.search_path,
            has_systemd: setup.systemd.is_some(),
            state,
        })
    }

    /// Name, also its host name and node name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Address on the lab's bridge.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its IPv6 address there, in a lab of both families.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.ipv6
    }

    /// Whether its first process is systemd.
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.has_systemd
    }

    /// Directory of its state as the machine sees it: `log/`, `etc/`, `var-lib/`, `var-log/`.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_some_and(|process| process.is_running())
    }

    /// Its first process, as the machine numbers it; `nsenter -t <pid> -a` enters the host.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        Process::load(&self.state.join("process.json"))
    }

    /// A program to be run inside the host, by the host's `PATH`, in its root directory.
    ///
    /// # Errors
    /// When the host does not run.
    pub fn command<I, S>(&self, arguments: I) -> Result<Command>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let process = self.process().filter(Process::is_running);
        let process = process.with_context(|| format!("the host `{}` does not run", self.name))?;
        let target = process.pid.to_string();
        let flags = ["-t", &target, "-m", "-u", "-i", "-n", "-p", "--", "env"];
        let mut command = program("nsenter", flags);
        command
            .arg(format!("PATH={}", self.search_path))
            .args(arguments)
            .current_dir("/");
        Ok(command)
    }

    /// Runs a program inside the host to its end and returns its standard output.
    ///
    /// # Errors
    /// When the host does not run, or the program fails; the error has the end of what it said.
    pub async fn run<I, S>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        run(&mut self.command(arguments)?).await
    }

    /// Writes a file inside the host, whole or not at all, with the directories above it.
    ///
    /// The host's state is not written directly: behind a mounted overlay such changes are not seen.
    ///
    /// # Errors
    /// When the host does not run or the file cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let process = self.process().filter(Process::is_running);
        let process = process.with_context(|| format!("the host `{}` does not run", self.name))?;
        let root = PathBuf::from(format!("/proc/{}/root", process.pid));
        let target = root.join(path.trim_start_matches('/'));
        let parent = target.parent().context("a file in a directory")?;
        let new = parent.join(".new");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &target))
            .with_context(|| format!("writing {path} on {}", self.name))
    }

    /// Has the host keep a program running; the same again changes nothing.
    ///
    /// # Errors
    /// When the host's state cannot be written.
    pub fn keep_running(&self, program: &Program) -> Result<()> {
        let path = self.program_file(&program.name);
        let text = serde_json::to_vec_pretty(program)?;
        if std::fs::read(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        let new = path.with_extension("new");
        std::fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Ends a program that the host keeps running, politely first.
    ///
    /// # Errors
    /// When the host has no such program.
    pub fn stop_running(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.program_file(name))
            .with_context(|| format!("the host `{}` keeps no program `{name}`", self.name))
    }

    /// Restarts a program that the host keeps running.
    ///
    /// # Errors
    /// When the host has no such program.
    pub fn restart(&self, name: &str) -> Result<()> {
        let mut program = self.program(name)?;
        program.generation += 1;
        self.keep_running(&program)
    }

    /// What the host keeps running under that name.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn program(&self, name: &str) -> Result<Program> {
        let text = std::fs::read(self.program_file(name))
            .with_context(|| format!("the host `{}` keeps no program `{name}`", self.name))?;
        serde_json::from_slice(&text).context("reading a program")
    }

    /// Names of the programs with how often each was started.
    #[must_use]
    pub fn programs(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.state.join("run"))
            .into_iter()
            .flatten()
            .flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let mark = std::fs::read_to_string(entry.path()).ok()?;
                let starts = mark.split_whitespace().nth(1)?.parse().ok()?;
                Some((entry.file_name().into_string().ok()?, starts))
            })
            .collect();
        found.sort();
        found
    }

    /// The log of a program.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    /// The last lines of a program's log, for errors.
    #[must_use]
    pub fn log_end(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ends everything in the host. Its state stays until it is removed.
    pub(crate) async fn stop(&self) -> Result<()> {
        if let Some(process) = self.process() {
            process
                .kill()
                .await
                .with_context(|| format!("ending the host {}", self.name))?;
        }
        if let Some(outer) = Process::load(&self.state.join("outer.json")) {
            outer.kill().await?;
        }
        remove_marks(&self.state);
        Ok(())
    }

    fn program_file(&self, name: &str) -> PathBuf {
        self.state.join("programs").join(format!("{name}.json"))
    }
}

fn remove_marks(state: &Path) {
    for mark in [LINKED, "up", "process.json", "outer.json"] {
        // Not there on a first start.
        let _ = std::fs::remove_file(state.join(mark));
    }
}

fn write_setup(plan: &HostPlan<'_>, state: &Path) -> Result<HostSetup> {
    for part in [
        "programs",
        "run",
        "log",
        "etc",
        "var-lib",
        "var-log/pods",
        "var-log/containers",
    ] {
        std::fs::create_dir_all(state.join(part)).context("making the host's state")?;
    }
    let mut keep = vec![plan.paths.state()];
    if plan.cache.starts_with("/var/lib") {
        keep.push(plan.cache.clone());
    }
    let system = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    let parts = plan.binaries.iter().map(|path| path.display().to_string());
    let parts: Vec<_> = parts.chain(system.map(str::to_owned)).collect();
    let setup = HostSetup {
        name: plan.name.to_owned(),
        state: state.to_owned(),
        keep,
        search_path: parts.join(":"),
        systemd: plan.systemd.clone(),
    };
    std::fs::write(state.join("address"), plan.address.to_string())
        .context("writing the host's address")?;
    if let Some(ipv6) = plan.addresses.ipv6(plan.address) {
        std::fs::write(state.join("ipv6"), ipv6.to_string())
            .context("writing the host's address")?;
    }
    std::fs::write(state.join("host.json"), serde_json::to_vec_pretty(&setup)?)
        .context("writing host.json")?;
    let hosts = format!(
        "127.0.0.1 localhost\n{} {}\n{} management\n{} pool\n",
        plan.address,
        plan.name,
        plan.addresses.management(),
        plan.addresses.pool()
    );
    std::fs::write(state.join("etc/hosts"), hosts).context("writing the host's /etc/hosts")?;
    std::fs::write(state.join("etc/hostname"), format!("{}\n", plan.name))?;
    std::fs::write(state.join("etc/resolv.conf"), resolver(&plan.name_servers))
        .context("writing the host's /etc/resolv.conf")?;
    Ok(setup)
}

fn spawn(supervisor: &Path, state: &Path) -> Result<Process> {
    let log = std::fs::File::create(state.join("log/supervisor.log")).context("making its log")?;
    let mut command = std::process::Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .args(["--mount-proc", "--propagation", "private", "--"])
        .arg(supervisor)
        .arg("supervise")
        .arg(state)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing its log")?)
        .stderr(log);
    // A terminal's Ctrl-C is for the command that made the host, not for the host.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().context("starting a host with `unshare`")?;
    let outer = Process::with_pid(child.id().try_into().context("a process number")?)
        .context("the host ended at once")?;
    outer.save(&state.join("outer.json"))?;
    Ok(outer)
}

async fn first_process(outer: &Process, state: &Path) -> Result<Process> {
    let begun = Instant::now();
    while !state.join("up").exists() {
        let said = || std::fs::read_to_string(state.join("log/supervisor.log")).unwrap_or_default();
        ensure!(
            outer.is_running(),
            "the host ended at its start: {}",
            said()
        );
        ensure!(
            begun.elapsed() < Duration::from_secs(10),
            "the host is not up: {}",
            said()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    outer.child().context("the host has no first process")
}
