//! The kubelet and this agent as services: of systemd where it runs, else of whoever supervises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::paths::{KUBECONFIG, KUBELET_CONFIG, KUBELET_FLAGS, remove, write};

/// Over whatever unit the kubelet's package has: later names win.
pub(crate) const KUBELET_DROP_IN: &str =
    "/etc/systemd/system/kubelet.service.d/90-stoker-node.conf";
/// Only where no package has one.
const KUBELET_UNIT: &str = "/etc/systemd/system/kubelet.service";
/// Ours.
pub(crate) const AGENT_UNIT: &str = "/etc/systemd/system/stoker-node.service";
const KUBELET: &str = "kubelet.service";
const AGENT: &str = "stoker-node.service";
/// By this the kubelet's unit that join wrote is known.
const DESCRIPTION: &str = "Description=The kubelet\n";
/// A kubelet ends within a second or two.
const ENDS: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Whether systemd supervises this machine.
pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Writes the units, and starts both; without systemd, says what is to be run.
pub(crate) fn start(program: &Path) -> Result<()> {
    if !has_systemd() {
        tracing::info!(
            "there is no systemd here: have `{}` and `{} run` supervised by what there is",
            kubelet_line("kubelet"),
            program.display()
        );
        return Ok(());
    }
    let kubelet = find("kubelet").context("there is no kubelet in PATH")?;
    let (drop_in, agent) = (drop_in(&kubelet)?, agent(program)?);
    if !systemctl(&["cat", KUBELET])? {
        write(KUBELET_UNIT, &unit(), 0o644)?;
    }
    write(KUBELET_DROP_IN, &drop_in, 0o644)?;
    write(AGENT_UNIT, &agent, 0o644)?;
    must(&["daemon-reload"])?;
    must(&["enable", KUBELET, AGENT])?;
    // What runs by an older configuration starts anew.
    must(&["restart", KUBELET, AGENT])
}

/// Stops both for good; returns when no kubelet runs by our configuration.
pub(crate) async fn stop() -> Result<()> {
    if has_systemd() {
        // One that is not there is stopped.
        systemctl(&["disable", "--now", AGENT])?;
        systemctl(&["disable", "--now", KUBELET])?;
    }
    let ending = end_kubelets()?;
    let begun = Instant::now();
    loop {
        let mut running = kubelets()?;
        // Another one is its supervisor's, and ends at once: its configuration is gone.
        running.retain(|process| ending.contains(process));
        if running.is_empty() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < ENDS,
            "the kubelet (process {}) has not ended within {ENDS:?}, and mounts volumes as long as it runs: end it, and run this again",
            running[0]
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what join wrote of both, once they are stopped.
pub(crate) fn remove_units() -> Result<()> {
    remove(KUBELET_DROP_IN)?;
    remove(AGENT_UNIT)?;
    if is_unit_ours() {
        remove(KUBELET_UNIT)?;
    }
    // It stays where somebody else has a drop-in there.
    let _ = Path::new(KUBELET_DROP_IN).parent().map(fs::remove_dir);
    if has_systemd() {
        must(&["daemon-reload"])?;
    }
    Ok(())
}

/// Has the kubelet read again what it reads at its start. Others go on meanwhile: the tunnel among them.
pub(crate) async fn restart_kubelet() -> Result<()> {
    if has_systemd() {
        let mut command = tokio::process::Command::new("systemctl");
        let output = command.args(["restart", KUBELET]).output().await;
        let output = output.context("running systemctl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "systemctl: {}", said.trim());
        return Ok(());
    }
    // Whoever supervises it starts it again.
    end_kubelets().map(drop)
}

fn kubelet_line(kubelet: &str) -> String {
    format!("{kubelet} --kubeconfig={KUBECONFIG} --config={KUBELET_CONFIG} $KUBELET_KUBEADM_ARGS")
}

fn drop_in(kubelet: &Path) -> Result<String> {
    let line = kubelet_line(&quoted(kubelet)?);
    Ok(format!(
        "# Of stoker-node join; stoker-node leave removes it.\n[Service]\nEnvironmentFile=-{KUBELET_FLAGS}\nExecStart=\nExecStart={line}\n"
    ))
}

fn unit() -> String {
    format!(
        "[Unit]\n{DESCRIPTION}Wants=network-online.target\nAfter=network-online.target containerd.service\nStartLimitIntervalSec=0\n\n\
         [Service]\nRestart=always\nRestartSec=2\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// Whether the kubelet's unit is one that join wrote.
fn is_unit_ours() -> bool {
    std::fs::read_to_string(KUBELET_UNIT).is_ok_and(|text| text.contains(DESCRIPTION))
}

fn agent(program: &Path) -> Result<String> {
    Ok(format!(
        "# Of stoker-node join; stoker-node leave removes it.\n[Unit]\nDescription=Stoker's agent on this node\n\
         Wants=network-online.target\nAfter=network-online.target kubelet.service\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={} run\nExecReload=/bin/kill -HUP $MAINPID\nNotifyAccess=all\nRestart=always\nRestartSec=2\n\n[Install]\nWantedBy=multi-user.target\n",
        quoted(program)?
    ))
}

/// A program's path as the first word of `ExecStart=` (`systemd.service(5)`): of several words where it is not quoted, and with
/// specifiers (`systemd.unit(5)`). Variables are not looked for in it.
fn quoted(program: &Path) -> Result<String> {
    let path = program.to_str().context("its path is no text");
    let path = path.with_context(|| format!("{}: move it", program.display()))?;
    let is_safe = |letter: char| !letter.is_control() && !['"', '\'', '\\'].contains(&letter);
    ensure!(
        path.chars().all(is_safe),
        "systemd runs no program at {path:?}: move it to where no directory has quotes, backslashes or control characters in its name"
    );
    Ok(format!("\"{}\"", path.replace('%', "%%")))
}

/// Has the kubelets that run by our configuration end, without systemd, and says which these are.
fn end_kubelets() -> Result<Vec<Pid>> {
    let running = kubelets()?;
    for process in &running {
        // One that has just ended is ended.
        let _ = kill(*process, Signal::SIGTERM);
    }
    Ok(running)
}

/// The kubelets that run by our configuration: of this machine's own file system, since in a container anybody has that path.
fn kubelets() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    let own = std::fs::read_link("/proc/self/ns/mnt").context("looking for the kubelet")?;
    let entries = std::fs::read_dir("/proc").context("looking for the kubelet")?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Empty once it has ended.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let sees = || std::fs::read_link(entry.path().join("ns/mnt"));
        if is_our_kubelet(&line) && sees().is_ok_and(|sees| sees == own) {
            found.push(Pid::from_raw(id));
        }
    }
    Ok(found)
}

fn is_our_kubelet(line: &[u8]) -> bool {
    let wanted = format!("--config={KUBELET_CONFIG}");
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().map(String::from_utf8_lossy);
    program.is_some_and(|program| Path::new(&*program).ends_with("kubelet"))
        && words.any(|word| word == wanted.as_bytes())
}

/// A program by `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places.find(|place| place.is_file())
}

fn systemctl(arguments: &[&str]) -> Result<bool> {
    Ok(run_systemctl(arguments)?.status.success())
}

fn must(arguments: &[&str]) -> Result<()> {
    let output = run_systemctl(arguments)?;
    ensure!(
        output.status.success(),
        "systemctl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn run_systemctl(arguments: &[&str]) -> Result<Output> {
    let output = Command::new("systemctl").args(arguments).output();
    output.context("running systemctl")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn the_drop_in_replaces_the_line_of_whatever_unit_there_is() {
        let text = drop_in(Path::new("/usr/bin/kubelet")).unwrap();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("ExecStart="))
            .collect();
        assert_eq!(lines[0], "ExecStart=");
        assert!(lines[1].starts_with(r#"ExecStart="/usr/bin/kubelet" --kubeconfig="#));
    }

    #[test]
    fn a_path_is_one_word_of_a_unit_as_it_is_or_refused() {
        let of = |path: &str| quoted(Path::new(path));
        assert_eq!(of("/opt/a b/50%/$d").unwrap(), r#""/opt/a b/50%%/$d""#);
        for refused in [r#"/opt/"a""#, "/opt/a's", r"/opt/\a", "/opt/a\nb"] {
            let said = of(refused).unwrap_err().to_string();
            assert!(said.contains("move it"), "{said}");
        }
    }

    #[test]
    fn what_calls_itself_a_kubelet_in_a_container_is_none() {
        let run = |command: &mut Command| {
            let command = command.stdin(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        // `sh` waits for a line, under a name and with an argument of a kubelet's.
        let config = format!("--config={KUBELET_CONFIG}");
        let arguments = ["-c", "read -r _; :", &config];
        let mut own = run(Command::new("sh").arg0("kubelet").args(arguments));
        let mut inside = run(Command::new("unshare")
            .args(["--map-root-user", "--mount", "bash", "-c"])
            .arg(format!("exec -a kubelet sh -c 'read -r _; :' {config}")));
        let id = |child: &std::process::Child| Pid::from_raw(child.id().cast_signed());
        let is_kubelet = |id: Pid| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            is_our_kubelet(&line)
        };
        let begun = Instant::now();
        while !(is_kubelet(id(&own)) && is_kubelet(id(&inside))) {
            assert!(begun.elapsed() < ENDS, "they have not started");
            std::thread::sleep(LOOK);
        }
        let found = kubelets().unwrap();
        for child in [&mut own, &mut inside] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(found.contains(&id(&own)) && !found.contains(&id(&inside)));
    }
}
