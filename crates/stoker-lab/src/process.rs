//! A process remembered by number and start time, so that a recycled number is never mistaken for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process number in the machine's root namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    start: u64,
}

impl Process {
    /// Remembers the process that has this number now; `None` when there is none.
    #[must_use]
    pub fn with_pid(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self {
            pid,
            start: stat.start,
        })
    }

    /// Whether this very process runs (a zombie does not).
    #[must_use]
    pub fn is_running(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.state != "Z")
    }

    /// Its first child, when it has one.
    #[must_use]
    pub fn child(&self) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&pid| stat(pid).is_some_and(|stat| stat.parent == self.pid))
            .and_then(Self::with_pid)
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it may not be killed or is still there after 10 s.
    pub async fn kill(&self) -> Result<()> {
        for _ in 0..500 {
            if !self.is_running() {
                return Ok(());
            }
            match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("killing {}", self.pid)),
            }
            // Only when it is our own child; any other is reaped by its parent.
            let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("process {} does not end", self.pid)
    }

    /// Reads what [`Process::save`] wrote; `None` when there is nothing.
    #[must_use]
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_vec(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

struct Stat {
    state: String,
    parent: i32,
    start: u64,
}

/// The name in field 2 may hold spaces and brackets, so fields are counted from its end.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_process_is_gone_and_a_recycled_number_is_not_it() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::with_pid(child.id().try_into().unwrap()).unwrap();
        assert!(process.is_running());
        assert!(
            !Process {
                start: process.start + 1,
                ..process
            }
            .is_running()
        );
        process.kill().await.unwrap();
        // The status is taken already, which is not an error.
        let _ = child.wait();
        assert!(!process.is_running());
    }
}
