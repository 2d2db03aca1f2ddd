//! An update without a gap: on SIGHUP (`systemctl reload`) this process starts its program anew. That one comes up beside it, says so,
//! and is the service then; this one takes nothing new any more and ends with what it carries.
//!
//! ```text
//!  SIGHUP ──► old ── starts ──► new ── tunnel up, then listener open ── "up" ──► old ── MAINPID=new ──► systemd; old drains
//!              ▲                  └── not within a minute, or it ends: old goes on ──┐
//!              └──────────────────────────────────────────────────────────────────────┘
//! ```
//! systemd watches its own children alone, and the new process is the old one's: as long as both live, the old one watches.

use std::io::Write as _;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;
use sd_notify::NotifyState;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// In the environment of a process that takes over: whether who runs before has a tunnel that is connected.
const SUCCEEDS: &str = "STOKER_NODE_SUCCEEDS";
const CONNECTED: &str = "connected";
/// How a process ends that was succeeded itself. systemd does not look: the service is another one by then.
const SUCCEEDED: u8 = 10;
/// What it says on its standard output then.
const IS_UP: &str = "up";
/// How long it may take to come up.
const COMES_UP: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });

/// Where this process takes over from another: whether that one has a tunnel that is connected.
pub(crate) fn succeeds() -> Option<bool> {
    std::env::var_os(SUCCEEDS).map(|value| value == CONNECTED)
}

/// How a process ends that was succeeded.
pub(crate) fn succeeded() -> ExitCode {
    ExitCode::from(SUCCEEDED)
}

/// Tells who ran before that this process does everything now.
pub(crate) fn announce() {
    // Who ran before may be gone.
    let _ = writeln!(std::io::stdout(), "{IS_UP}");
}

/// Waits to be asked. From when it is made, SIGHUP ends nothing.
#[derive(Debug)]
pub(crate) struct Asked(Signal);

impl Asked {
    pub(crate) fn wait() -> Result<Self> {
        let signal = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
        Ok(Self(signal))
    }

    /// Until a successor is up, and systemd knows. One that does not get there changes nothing.
    pub(crate) async fn succeeded(&mut self, is_connected: impl Fn() -> bool) -> Successor {
        loop {
            if self.0.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            match self.successor(is_connected()).await {
                Ok(successor) => return successor,
                Err(error) => tracing::error!(error = format!("{error:#}"), "this process goes on"),
            }
        }
    }

    async fn successor(&mut self, is_connected: bool) -> Result<Successor> {
        ensure!(
            std::env::var_os("NOTIFY_SOCKET").is_some(),
            "systemd is not to be told who takes over; stop this process, and start it again"
        );
        // As it was called: the program may be another one by now.
        let mut words = std::env::args_os();
        let mut command = Command::new(words.next().context("a program without a name")?);
        let child = start(command.args(words), is_connected).await?;
        let successor = Successor(child);
        successor.is_the_service()?;
        // The program was replaced once more meanwhile.
        if timeout(Duration::ZERO, self.0.recv()).await.is_ok() {
            successor.ask();
        }
        Ok(successor)
    }
}

/// Who has taken over.
#[derive(Debug)]
pub(crate) struct Successor(Child);

impl Successor {
    fn is_the_service(&self) -> Result<()> {
        let id = self.0.id().context("who takes over has ended")?;
        main_process(id)
    }

    fn ask(&self) {
        if let Some(id) = self.0.id() {
            let _ = kill(Pid::from_raw(id.cast_signed()), Number::SIGHUP);
        }
    }

    /// Until it has ended, but for one that was succeeded itself.
    pub(crate) async fn failed(&mut self) -> ExitStatus {
        match self.0.wait().await {
            Ok(status) if status.code() != Some(SUCCEEDED.into()) => {
                // systemd sees how this process ends, and starts the service anew.
                if let Err(error) = main_process(std::process::id()) {
                    tracing::warn!(error = format!("{error:#}"), "systemd sees nobody end");
                }
                status
            }
            _ => std::future::pending().await,
        }
    }
}

fn main_process(id: u32) -> Result<()> {
    sd_notify::notify(&[NotifyState::MainPid(id)])
        .context("telling systemd which process the service is")
}

/// Starts what takes over, and waits until it says that it is up.
async fn start(command: &mut Command, is_connected: bool) -> Result<Child> {
    let command = command.env(SUCCEEDS, if is_connected { CONNECTED } else { "" });
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting what takes over")?;
    let said = child.stdout.take().context("it has no standard output")?;
    let mut line = String::new();
    let heard = timeout(COMES_UP, BufReader::new(said).read_line(&mut line)).await;
    if matches!(heard, Ok(Ok(_))) && line.trim_end() == IS_UP {
        return Ok(child);
    }
    // It may be in the middle of coming up.
    let _ = child.kill().await;
    bail!("what was to take over has not come up within {COMES_UP:?}; its log says why")
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
        let script = format!("test \"${SUCCEEDS}\" = {CONNECTED} && echo {IS_UP}; exec sleep 9");
        let mut child = start(&mut shell(&script), true).await.unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().await.unwrap();
        for script in ["exit 1", "echo no; exec sleep 9", "exec sleep 9"] {
            let said = start(&mut shell(script), true)
                .await
                .unwrap_err()
                .to_string();
            assert!(said.contains("has not come up"), "{said}");
        }
        assert!(
            start(&mut Command::new("/nonexistent"), true)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn who_took_over_has_failed_when_it_ends_and_was_not_succeeded() {
        let succeeded = format!("exit {SUCCEEDED}");
        for (script, failed) in [(&*succeeded, false), ("exit 0", true), ("kill -9 $$", true)] {
            let mut successor = Successor(shell(script).spawn().unwrap());
            let patience = Duration::from_secs(if failed { 30 } else { 2 });
            let ended = timeout(patience, successor.failed()).await;
            assert_eq!(ended.is_ok(), failed, "{script}");
        }
    }
}
