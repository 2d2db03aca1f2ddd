//! The first process inside a host: sets up its file systems, runs its programs, restarts what ends.
//!
//! It is process 1 of the host's own process namespace. Killing it ends everything in the host, containers
//! included, and its mounts go with its mount namespace; no list of processes has to be right for that.
//!
//! Which programs run is what the files in `<host>/programs` say; a changed file restarts its program and a
//! removed one ends it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::file_system;
use super::systemd::Systemd;

/// How often changes are looked for.
const TICK: Duration = Duration::from_millis(50);
/// Pause before a program that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Time between asking a program to end and killing it.
const GRACE: Duration = Duration::from_secs(5);

/// A program that a host keeps running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Name; its log is `<host>/log/<name>.log`.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment beside what every program of the host gets.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Started only once this file is there, as a kubelet waits for kubeadm.
    #[serde(default)]
    pub start_when: Option<PathBuf>,
    /// A changed number restarts the program.
    #[serde(default)]
    pub generation: u64,
}

/// What the supervisor needs to know about its host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HostSetup {
    /// Host name.
    pub(super) name: String,
    /// Directory of the host's state.
    pub(super) state: PathBuf,
    /// Directories below `/var/lib` that must stay visible, beside the lab's state.
    pub(super) keep: Vec<PathBuf>,
    /// `PATH` of every program.
    pub(super) search_path: String,
    /// Where it is systemd that keeps units running.
    #[serde(default)]
    pub(super) systemd: Option<Systemd>,
}

struct Running {
    program: Program,
    pid: Option<Pid>,
    not_before: Instant,
    /// When it was asked to end: the time to kill it.
    kill_at: Option<Instant>,
    starts: u64,
}

/// Runs as process 1 of a host until it is killed, or as a unit of the systemd that it has become.
///
/// # Errors
/// When the host's file systems cannot be set up.
pub fn supervise(state: &Path) -> Result<()> {
    let text = std::fs::read(state.join("host.json")).context("reading host.json")?;
    let setup: HostSetup = serde_json::from_slice(&text).context("reading host.json")?;
    if std::process::id() == 1 {
        nix::unistd::sethostname(&setup.name).context("setting the host name")?;
        file_system::set_up(&setup)?;
        if let Some(systemd) = &setup.systemd {
            return systemd.become_it(&setup);
        }
    }
    std::fs::write(setup.state.join("up"), "").context("saying that the host is up")?;
    let mut programs = BTreeMap::new();
    loop {
        reap(&mut programs);
        adopt_changes(&setup, &mut programs);
        for (name, running) in &mut programs {
            if let Err(error) = start_if_due(&setup, running) {
                running.not_before = Instant::now() + RESTART_PAUSE;
                log_failure(&setup, name, &error);
            }
        }
        std::thread::sleep(TICK);
    }
}

/// Takes the exit status of every process that ended, also of those orphaned to us.
fn reap(programs: &mut BTreeMap<String, Running>) {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = status else {
            return;
        };
        if let Some(running) = programs
            .values_mut()
            .find(|running| running.pid == Some(pid))
        {
            running.pid = None;
            let asked_to = running.kill_at.take().is_some();
            running.not_before = Instant::now()
                + if asked_to {
                    Duration::ZERO
                } else {
                    RESTART_PAUSE
                };
        }
    }
}

fn adopt_changes(setup: &HostSetup, programs: &mut BTreeMap<String, Running>) {
    let wanted = read_programs(&setup.state.join("programs"));
    for (name, running) in programs.iter_mut() {
        if wanted.get(name) != Some(&running.program) {
            end(running);
        }
    }
    programs.retain(|name, running| wanted.contains_key(name) || running.pid.is_some());
    for (name, program) in wanted {
        let running = programs.entry(name).or_insert_with(|| Running {
            program: program.clone(),
            pid: None,
            not_before: Instant::now(),
            kill_at: None,
            starts: 0,
        });
        if running.pid.is_none() && running.program != program {
            running.program = program;
            running.not_before = Instant::now();
        }
    }
}

fn read_programs(directory: &Path) -> BTreeMap<String, Program> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter_map(|path| serde_json::from_slice::<Program>(&std::fs::read(path).ok()?).ok())
        .map(|program| (program.name.clone(), program))
        .collect()
}

/// Asks a program to end; what has not ended in time is killed.
fn end(running: &mut Running) {
    let Some(pid) = running.pid else { return };
    let now = Instant::now();
    // A failure means that it has just ended; the next look finds its status.
    let _ = match running.kill_at {
        None => kill(pid, Signal::SIGTERM),
        Some(deadline) if deadline <= now => kill(pid, Signal::SIGKILL),
        Some(_) => Ok(()),
    };
    running.kill_at.get_or_insert(now + GRACE);
}

fn start_if_due(setup: &HostSetup, running: &mut Running) -> Result<()> {
    let program = &running.program;
    let awaited = program
        .start_when
        .as_ref()
        .is_some_and(|path| !path.exists());
    if running.pid.is_some() || awaited || Instant::now() < running.not_before {
        return Ok(());
    }
    let log = setup
        .state
        .join("log")
        .join(format!("{}.log", program.name));
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .context("opening its log")?;
    let (first, arguments) = program.command.split_first().context("an empty command")?;
    let child = Command::new(first)
        .args(arguments)
        .env_clear()
        .env("PATH", &setup.search_path)
        .env("HOME", "/root")
        .envs(&program.environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("sharing its log")?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting {first}"))?;
    running.pid = Some(Pid::from_raw(
        child.id().try_into().context("a process number")?,
    ));
    running.starts += 1;
    let mark = format!("{} {}\n", child.id(), running.starts);
    std::fs::write(setup.state.join("run").join(&program.name), mark).context("noting its start")
}

fn log_failure(setup: &HostSetup, name: &str, error: &anyhow::Error) {
    let log = setup.state.join("log").join(format!("{name}.log"));
    if let Ok(mut file) = File::options().create(true).append(true).open(log) {
        use std::io::Write as _;
        let _ = writeln!(file, "supervisor: {error:#}");
    }
}
