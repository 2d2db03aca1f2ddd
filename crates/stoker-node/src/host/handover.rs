//! An update without a gap: on SIGHUP (`systemctl reload`) this process starts its program anew, which comes up beside it, tells
//! systemd that it is the service now, and then this one, which takes nothing new any more and ends with what it carries.
//!
//! ```text
//!  SIGHUP ──► old ── starts ──► new ── listener open, tunnel up ──► MAINPID= to systemd, "up" to old ──► old drains
//!              ▲                  └── not within a minute, or it ends: old goes on ──┐
//!              └──────────────────────────────────────────────────────────────────────┘
//! ```

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sd_notify::NotifyState;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// In the environment of a process that takes over.
const SUCCEEDS: &str = "STOKER_NODE_SUCCEEDS";
/// What it says on its standard output then.
const IS_UP: &str = "up";
/// How long it may take to come up.
pub(crate) const COMES_UP: Duration = Duration::from_mins(1);
/// Its own limit ends it first.
const PATIENCE: Duration = Duration::from_secs(75);

/// Whether this process takes over from another.
pub(crate) fn succeeds() -> bool {
    std::env::var_os(SUCCEEDS).is_some()
}

/// Tells systemd, and who ran before.
pub(crate) fn announce() -> Result<()> {
    use std::io::Write as _;
    sd_notify::notify(&[NotifyState::MainPid(std::process::id())])
        .context("telling systemd which process the service is")?;
    // Who ran before may be gone.
    let _ = writeln!(std::io::stdout(), "{IS_UP}");
    Ok(())
}

/// Waits to be asked. From when it is made, SIGHUP ends nothing.
#[derive(Debug)]
pub(crate) struct Asked(Signal);

impl Asked {
    pub(crate) fn wait() -> Result<Self> {
        Ok(Self(
            signal(SignalKind::hangup()).context("waiting for SIGHUP")?,
        ))
    }

    /// Until a successor is up. One that does not get there changes nothing.
    pub(crate) async fn succeeded(&mut self) -> Child {
        loop {
            if self.0.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            match successor().await {
                Ok(child) => return child,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "this process goes on");
                }
            }
        }
    }
}

async fn successor() -> Result<Child> {
    ensure!(
        std::env::var_os("NOTIFY_SOCKET").is_some(),
        "systemd is not to be told who takes over; stop this process, and start it again"
    );
    // As it was called: the program may be another one by now.
    let mut words = std::env::args_os();
    let mut command = Command::new(words.next().context("a program without a name")?);
    start(command.args(words)).await
}

/// Starts what takes over, and waits until it says that it is up.
async fn start(command: &mut Command) -> Result<Child> {
    let command = command.env(SUCCEEDS, std::process::id().to_string());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting what takes over")?;
    let said = child.stdout.take().context("it has no standard output")?;
    let mut line = String::new();
    let heard = timeout(PATIENCE, BufReader::new(said).read_line(&mut line)).await;
    if matches!(heard, Ok(Ok(_))) && line.trim_end() == IS_UP {
        return Ok(child);
    }
    // It may be in the middle of coming up.
    let _ = child.kill().await;
    bail!("what was to take over has not come up; its log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn only_one_that_says_that_it_is_up_takes_over() {
        let script = format!("test \"${SUCCEEDS}\" = $PPID && echo {IS_UP}; exec sleep 9");
        let mut child = start(&mut shell(&script)).await.unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().await.unwrap();
        for script in ["exit 1", "echo no; exec sleep 9"] {
            let said = start(&mut shell(script)).await.unwrap_err().to_string();
            assert!(said.contains("has not come up"), "{said}");
        }
        assert!(start(&mut Command::new("/nonexistent")).await.is_err());
    }
}
